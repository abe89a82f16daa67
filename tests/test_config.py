"""Which loss a dict in a config means: ours, a host's, or a name that both have for different losses."""

import pytest

from lossreg.__main__ import main
from lossreg.config import find_losses, migration_diff, requests_for
from lossreg.errors import ConfigError, DeclinedError
from lossreg.registry import build_loss


def found_in(tmp_path, text, host=''):
    (tmp_path / 'config.py').write_text(text)
    (found,) = find_losses(tmp_path / 'config.py', host)
    return found


def added(tmp_path):
    diff = migration_diff(tmp_path / 'config.py')
    return [line[1:] for line in diff.splitlines() if line.startswith('+') and not line.startswith('+++')]


SEG = "default_scope = 'mmseg'\n"


@pytest.mark.parametrize('written', ["type='lossreg.CrossEntropyLoss'", "type='CrossEntropyLoss', _scope_='lossreg'"])
def test_a_plain_name_that_means_another_loss_to_the_host_is_an_error(written, tmp_path):
    found = found_in(tmp_path, f'{SEG}loss_decode = dict({written})\n')
    assert found.type == 'lossreg.CrossEntropyLoss'
    with pytest.raises(ConfigError, match=r'CrossEntropyLoss means something else here; write lossreg\.SegCrossEnt'):
        found.request()


def test_migrate_mends_it(tmp_path):
    found_in(tmp_path, f"{SEG}loss_decode = dict(type='lossreg.CrossEntropyLoss', loss_weight=0.4)\n")
    assert added(tmp_path) == ["loss_decode = dict(type='lossreg.SegCrossEntropyLoss', loss_weight=0.4)"]


@pytest.mark.parametrize(
    ('scope', 'written', 'ours'),
    [
        ('mmdet', 'CrossEntropyLoss', 'CrossEntropyLoss'),
        ('mmseg', 'CrossEntropyLoss', 'SegCrossEntropyLoss'),
        ('mmpretrain', 'CrossEntropyLoss', 'PretrainCrossEntropyLoss'),
        ('mmaction', 'CrossEntropyLoss', 'ActionCrossEntropyLoss'),
        ('mmrazor', 'CrossEntropyLoss', 'RazorCrossEntropyLoss'),
        ('mmseg', 'mmdet.CrossEntropyLoss', 'CrossEntropyLoss'),
        ('mmdet', 'DiceLoss', 'DiceLoss'),
        ('mmseg', 'DiceLoss', 'SegDiceLoss'),
        ('mmpose', 'L1Loss', 'PoseL1Loss'),
        ('mmagic', 'L1Loss', 'MagicL1Loss'),
        ('mmrazor', 'L2Loss', 'RazorL2Loss'),
        ('mmyolo', 'mmdet.QualityFocalLoss', 'QualityFocalLoss'),
    ],
)
def test_a_hosts_name_means_its_own_loss(scope, written, ours, tmp_path):
    found = found_in(tmp_path, f"default_scope = '{scope}'\nloss = dict(type='{written}')\n")
    assert type(found.request().loss).__name__ == ours
    assert found_in(tmp_path, f"loss = dict(type='{written}')\n", host=scope).stand_in.loss.__name__ == ours


def test_a_scope_holds_for_what_is_inside(tmp_path):
    """mmengine builds the parts of a model in its scope, as in mmocr's detectors from mmdet."""
    text = "default_scope = 'mmocr'\nmodel = dict(type='MMDetWrapper', cfg=dict(type='MaskRCNN', {scope}{loss}))\n"
    loss = "head=dict(loss=dict(type='CrossEntropyLoss'))"
    assert found_in(tmp_path, text.format(scope='', loss=loss)).host_class == 'mmocr.CrossEntropyLoss'
    assert found_in(tmp_path, text.format(scope="_scope_='mmdet', ", loss=loss)).host_class == 'mmdet.CrossEntropyLoss'


def test_without_unscoped_a_name_that_the_host_lacks_is_the_hosts(tmp_path):
    plain = "default_scope = 'mmdet'\nloss = dict(type='KLDiscretLoss')\n"
    assert found_in(tmp_path, plain).request() is None
    unscoped = "custom_imports = dict(imports=['lossreg.unscoped'])\n"
    assert type(found_in(tmp_path, plain + unscoped).request().loss).__name__ == 'KLDiscretLoss'


def test_with_unscoped_the_hosts_own_name_still_wins(tmp_path):
    text = f"{SEG}custom_imports = dict(imports=['lossreg.unscoped'])\nloss = dict(type='DiceLoss')\n"
    assert found_in(tmp_path, text).host_class == 'mmseg.DiceLoss'


def test_a_class_of_a_pure_python_config_is_migrated_too(tmp_path):
    found_in(tmp_path, 'from torch.nn import L1Loss\nloss = dict(type=L1Loss)\n')
    assert added(tmp_path) == ["loss = dict(type='lossreg.TorchL1Loss')"]


def test_an_argument_of_a_namesake_names_it():
    with pytest.raises(ConfigError, match=r"no argument 'loss_name'; mmseg's class of this name has it: write SegDice"):
        build_loss({'type': 'DiceLoss', 'loss_name': 'loss_dice'})


ANCHOR_HEAD = """
default_scope = 'mmdet3d'
model = dict(type='VoxelNet', bbox_head=dict(
    type='Anchor3DHead',
    loss_cls=dict(type='{loss}'),
    loss_bbox=dict(type='mmdet.SmoothL1Loss'),
))
"""


def test_a_head_that_looks_at_its_losss_type_keeps_the_hosts(tmp_path, capsys):
    path = tmp_path / 'config.py'
    path.write_text(ANCHOR_HEAD.format(loss='mmdet.FocalLoss'))
    assert added(tmp_path) == ["    loss_bbox=dict(type='lossreg.SmoothL1Loss'),"]
    assert main(['migrate', str(path)]) == 0
    assert 'bbox_head.loss_cls: Anchor3DHead samples anchors' in capsys.readouterr().err
    # it can be checked and exported; the place matters only in training
    assert all(item.request() for item in find_losses(path))


def test_ours_in_such_a_head_is_an_error(tmp_path):
    path = tmp_path / 'config.py'
    path.write_text(ANCHOR_HEAD.format(loss='lossreg.FocalLoss'))
    focal, smooth = find_losses(path)
    with pytest.raises(ConfigError, match=r'Anchor3DHead samples anchors .*; mmdet\.FocalLoss must stay here'):
        focal.request()
    assert smooth.request()


def test_dicts_of_one_type_some_of_which_are_kept_are_left_to_the_user(tmp_path):
    heads = "[dict(type='DynamicRoIHead', loss=dict(type='SmoothL1Loss')), dict(type='SmoothL1Loss')]"
    (tmp_path / 'config.py').write_text(f"default_scope = 'mmdet'\nheads = {heads}\n")
    with pytest.raises(DeclinedError, match='SmoothL1Loss need different changes'):
        migration_diff(tmp_path / 'config.py')


def test_arguments_that_the_head_makes_others_of(tmp_path):
    found = found_in(tmp_path, "loss_cls = dict(type='mmdet.CrossEntropyLoss', class_weight=1.0, bg_cls_weight=0.1)\n")
    with pytest.raises(DeclinedError, match='DETRHead makes a weight for each class'):
        found.request()
    assert added(tmp_path) == ["loss_cls = dict(type='lossreg.CrossEntropyLoss', class_weight=1.0, bg_cls_weight=0.1)"]


def test_an_objective_of_ours_is_one_graph(tmp_path):
    """Its terms are not exported separately; a host's wrapper, however, may call its losses one by one."""
    term = "dict(loss=dict(type='lossreg.CrossEntropyLoss'), inputs=dict(cls_score='student', label='label'))"
    path = tmp_path / 'config.py'
    path.write_text(f"loss = dict(type='lossreg.CompositeLoss', losses=dict(ce={term}))\nother = dict(type='L1Loss')\n")
    requests, left = requests_for(str(path), 'lossreg')
    assert [type(request.loss).__name__ for request in requests] == ['CompositeLoss', 'L1Loss']
    assert not left
