"""Compares the table of head calls with the source of every head in it; ``heads.py`` does so for heads in training.

It also compares files exported from a config with the losses of the real heads.
"""

import importlib
import importlib.util
import inspect
import json
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path

import heads
import numpy as np
import onnxruntime
import packages
import pytest
import torch
from head_sources import Site, attributes, sites, written_classes
from mmengine.config import Config
from test_heads_mmdet import samples as detected
from test_heads_mmpose import samples_of
from test_heads_others import decode_losses
from torch import Tensor, nn

from lossreg.__main__ import main
from lossreg.head_calls import TABLE, Gives, Head, in_table

pytestmark = pytest.mark.openmmlab

pytest.importorskip('mmdet', reason='needs the real OpenMMLab packages: tests/openmmlab/install.sh VENV')


@cache
def classes_of(package: str) -> dict[str, type]:
    """The classes of a package by name: registered ones or, if its models cannot be imported, those in the source."""
    if not packages.is_installed(package):
        pytest.skip('not installed')
    packages.losses_of(package)
    if package == 'mmagic':
        return written_classes(Path(importlib.util.find_spec(package).origin).parent / 'models')
    models = importlib.import_module(f'{package}.models')
    registered = importlib.import_module(f'{package}.registry').MODELS.module_dict
    return {**vars(models), **registered}


def places() -> list[str]:
    """Every head in the table."""
    return sorted({f'{row.package}.{head}' for row in TABLE for head in row.heads.split()})


HELD = {
    ('mmpose.CIDHead', 'coupled_heatmap_loss'): ('loss_module', 'heatmap_coupled'),
    ('mmpose.CIDHead', 'decoupled_heatmap_loss'): ('loss_module', 'heatmap_decoupled'),
    ('mmpose.CIDHead', 'contrastive_loss'): ('loss_module', 'contrastive'),
    ('mmpose.DEKRHead', 'heatmap_loss'): ('loss_module', 'heatmap'),
    ('mmpose.DEKRHead', 'displacement_loss'): ('loss_module', 'displacement'),
    ('mmpose.AssociativeEmbeddingHead', 'keypoint_loss'): ('loss_module', 'keypoint_loss'),
    ('mmpose.AssociativeEmbeddingHead', 'tag_loss'): ('loss_module', 'tag_loss'),
    ('mmpose.MultipleLossWrapper', 'losses'): ('loss_modules', ''),
    ('mmpose.DWPoseDistiller', 'distill_cfg.methods'): ('distill_losses', ''),
    ('mmseg.PIDHead', 'loss_decode[0]'): ('loss_decode', '0'),
    ('mmseg.PIDHead', 'loss_decode'): ('loss_decode', '1'),
}
"""The attribute, and the key in it, of losses whose attribute differs from the constructor's parameter."""

ELSEWHERE = {
    'vote_module_cfg.vote_loss': ('mmdet3d.models.layers.vote_module', 'VoteModule', 'vote_loss'),
}
"""Options of a module that a head builds and that calls the loss."""

BY_THE_WAY = {
    ('PAAHead', 'loss_cls'): 'get_pos_loss',
    ('PAAHead', 'loss_bbox'): 'get_pos_loss',
    ('LADHead', 'loss_cls'): 'get_pos_loss',
    ('LADHead', 'loss_bbox'): 'get_pos_loss',
    ('CFAHead', 'loss_cls'): 'get_pos_loss',
    ('CFAHead', 'loss_bbox_refine'): 'get_pos_loss',
    ('CenterNetUpdateHead', 'loss_bbox'): 'add_cls_pos_inds',
    ('OrientedRepPointsHead', 'loss_cls'): 'pointsets_quality_assessment',
    ('OrientedRepPointsHead', 'loss_bbox_refine'): 'pointsets_quality_assessment',
}
"""Methods that call a loss only to select training samples."""

UNSEEN = {
    'mmpose.CIDHead.coupled_heatmap_loss': 'gives None as the third of four, which the table says by name',
    'mmdet.*.loss_seg': 'puts its ignore_label into the loss',
    'mmrazor.*.distill_losses.*': 'gives what the config maps',
    'mmagic.*.gan_loss': 'its calls differ by the values of two flags',
    'mmagic.*.loss_gan': 'its calls differ by the values of two flags, which come from their caller',
}
"""Rows that cannot be read from the source, and why."""


def is_unseen(place: str) -> bool:
    package, _, option = place.split('.', 2)
    return place in UNSEEN or f'{package}.*.{option}' in UNSEEN


def found_sites(package: str, name: str, cls: type, option: str) -> list[Site]:
    """The calls of an option's loss in a head's source; empty if the head has no such option."""
    if option in ELSEWHERE:
        module, other, option = ELSEWHERE[option]
        cls = getattr(importlib.import_module(module), other)
        return sites(cls, option)
    attribute, key = HELD.get((f'{package}.{name}', option), ('', ''))
    if not attribute:
        attribute = attributes(cls).get(option, '')
    return sites(cls, attribute, key) if attribute else []


Call = tuple[int, frozenset[str]]
"""The number of positional arguments of a call, and the names of the others."""

POSITIONAL = {'threshold'}
"""Constants given by position."""


def like_others(count: int, names: set[str]) -> Call:
    """A call with the weight as third positional argument, which some heads give by name."""
    names = names - POSITIONAL
    return (3, frozenset(names - {'weight'})) if count == 2 and 'weight' in names else (count, frozenset(names))


def given_in(site: Site) -> Call:
    """The arguments of a call; a ``reduction_override`` that is only passed on is None in all calls of a package."""
    handed_on = ('reduction_override', 'reduction_override') in site.named
    return like_others(site.positional, set(site.names) - ({'reduction_override'} if handed_on else set()))


def said(gives: Gives) -> Iterator[Call]:
    """The arguments of a call in the table."""
    names = {*gives.named, *gives.constants}
    yield like_others(gives.positional, names)
    if gives.if_taken:
        yield like_others(gives.positional, {*names, *gives.if_taken})


def all_at_once(calls: set[Call]) -> set[Call]:
    """The call of a head that makes all of these calls in one, with None for absent arguments."""
    return {like_others(2, set().union(*({'weight', *n} if c == 3 else n for c, n in calls if c in (2, 3))))}


def options_of(package: str, name: str) -> dict[str, set[Call]]:
    """The rows of the table for a head, by option."""
    rows = [row for row in TABLE if row.package == package and name in row.heads.split()]
    return {
        option: {call for g in (gives if isinstance(gives, tuple) else (gives,)) for call in said(g)}
        for row in rows
        for option, gives in row.losses.items()
    }


@pytest.mark.parametrize('place', places())
def test_every_call_in_the_source_is_in_the_table(place):
    package, name = place.split('.')
    cls = classes_of(package)[name]
    options = options_of(package, name)
    built = {option: attributes(cls).get(option, option) for option in options}
    shown = 0
    for option, want in options.items():
        if is_unseen(f'{place}.{option}'):
            shown += 1
            continue
        found = [s for s in found_sites(package, name, cls, option) if s.method != BY_THE_WAY.get((name, option))]
        if not found:
            continue
        shown += 1
        got = set(map(given_in, found))
        # of two options with the same attribute, the head builds only one
        any_of = set().union(*(options[other] for other in options if built[other] == built[option]))
        assert got <= any_of or got == all_at_once(want), option
        assert want <= got or got == all_at_once(want), option
    assert shown


def test_every_row_is_shown_by_a_head():
    """Every option in a row exists in one of its heads."""
    known = {package: classes_of(package) for package in {row.package for row in TABLE}}
    for row in TABLE:
        for option in row.losses:
            assert any(
                is_unseen(f'{row.package}.{name}.{option}')
                or found_sites(row.package, name, known[row.package][name], option)
                for name in row.heads.split()
            ), f'{row.package}: {option} of {row.heads}'


@pytest.mark.parametrize('package', [p for p in packages.HOSTS if p not in ('mmagic', 'mmocr')])
def test_every_head_that_calls_a_loss_is_in_the_table(package):
    """If the source of a registered head shows a call, the option is in the table or named here as never reached."""
    registered = importlib.import_module(f'{package}.registry').MODELS.module_dict if classes_of(package) else {}
    missing = []
    for name, cls in registered.items():
        if not (isinstance(cls, type) and issubclass(cls, nn.Module)) or '.losses.' in cls.__module__:
            continue
        for option, attribute in attributes(cls).items():
            place = f'{package}.{name}.{option}'
            head = Head(f'{package}.{name}', option, {})
            known = in_table(head) or in_table(replace(head, option=f'{option}.any'))
            if sites(cls, attribute) and not known and place not in LEFT_OUT:
                missing.append(place)
    assert not missing


LEFT_OUT = {
    'mmaction.CLIPSimilarity.loss': 'a loss of its own scores, whose config is no loss of mmaction',
}


# Files


class Recorded:
    """The arguments of a call of a loss, by parameter name, and its result."""

    def __init__(self, module: nn.Module) -> None:
        self.names = list(inspect.signature(getattr(module, '_forward', module.forward)).parameters)
        self.calls: list[tuple[dict[str, object], Tensor]] = []
        module.register_forward_hook(self.record, with_kwargs=True)

    def record(self, module: nn.Module, positional: tuple, named: dict, returned: Tensor) -> None:
        self.calls.append(({**dict(zip(self.names, positional, strict=False)), **named}, returned))


def pixels(ignored):
    from mmengine.structures import PixelData
    from mmseg.structures import SegDataSample

    labels = torch.randint(0, 4, (2, 1, 32, 48))
    labels[:, :, :8] = ignored
    return [torch.randn(2, 8, 8, 12)], [SegDataSample(gt_sem_seg=PixelData(data=label)) for label in labels]


def fcn(**options):
    return {
        'type': 'FCNHead',
        'in_channels': 8,
        'in_index': 0,
        'channels': 4,
        'num_classes': 4,
        'loss_decode': {'type': 'CrossEntropyLoss', 'avg_non_ignore': True},
        **options,
    }


def retina():
    cfg = heads.shipped_config('mmdet', 'retinanet/retinanet_r50_fpn_1x_coco.py').model
    cfg.bbox_head.update(in_channels=32, feat_channels=32, train_cfg=cfg.get('train_cfg'), test_cfg=cfg.test_cfg)
    return cfg.bbox_head


def rtmpose():
    head = heads.shipped_config(
        'mmpose', 'body_2d_keypoint/rtmpose/coco/rtmpose-s_8xb256-420e_coco-256x192.py'
    ).model.head
    head.update(in_channels=8)
    return head


def classifier():
    head = heads.shipped_config('mmpretrain', 'resnet/resnet50_8xb32_in1k.py').model.head
    head.update(in_channels=16, num_classes=10)
    return head


def classified():
    from mmpretrain.structures import DataSample

    return torch.randn(4, 16), [DataSample().set_gt_label(torch.tensor([label])) for label in (3, 0, 7, 9)]


def step_of_retina(head):
    head.loss(tuple(torch.randn(2, 32, size, size) for size in (16, 8, 4, 2, 1)), detected())


def step_of_rtmpose(head):
    width, height = (int(size * 2) for size in (192, 256))
    samples = samples_of(17, x=width, y=height)
    for sample in samples:
        for name, value in sample.gt_instance_labels.items():
            sample.gt_instance_labels[name] = value.float()
    head.loss((torch.randn(3, 8, 8, 6),), samples)


def step_of_classifier(head):
    features, samples = classified()
    head.loss((features,), samples)


WHOLE = {
    'ignored class': ('mmseg', lambda: fcn(ignore_index=0), lambda h: decode_losses(h, *pixels(0)), 'loss_decode'),
    'ignored 255': ('mmseg', fcn, lambda h: decode_losses(h, *pixels(255)), 'loss_decode'),
    'hard pixels': (
        'mmseg',
        lambda: fcn(sampler={'type': 'OHEMPixelSampler', 'thresh': 0.7, 'min_kept': 200}),
        lambda h: decode_losses(h, *pixels(255)),
        'loss_decode',
    ),
    'anchors': ('mmdet', retina, step_of_retina, 'loss_cls'),
    'boxes': ('mmdet', retina, step_of_retina, 'loss_bbox'),
    'keypoints': ('mmpose', rtmpose, step_of_rtmpose, 'loss_module'),
    'classes': ('mmpretrain', classifier, step_of_classifier, 'loss_module'),
}


@pytest.mark.parametrize('name', WHOLE)
def test_the_file_gives_what_the_head_computes(name, tmp_path, capsys):
    """The tensors of each call in a training step are exactly the inputs of the file."""
    package, cfg, step, attribute = WHOLE[name]
    packages.losses_of(package)
    torch.manual_seed(0)
    head = heads.built(package, cfg())
    recorded = Recorded(getattr(head, attribute))
    step(head)
    Config({'default_scope': package, 'model': cfg()}).dump(tmp_path / 'config.py')
    assert main(['export', str(tmp_path / 'config.py'), '--out', str(tmp_path / 'out'), '--json']) == 0
    rows = json.loads(capsys.readouterr().out)['rows']
    option = {'loss_module': 'loss'}.get(attribute, attribute)
    (path,) = [row['path'] for row in rows if row['heads'] == [f'{package}.{cfg()["type"]}.{option}']]
    session = onnxruntime.InferenceSession(path)
    inputs = [(i.name, i.type) for i in session.get_inputs()]
    assert recorded.calls
    # the sampler's call is different: it needs the loss of each pixel
    for given, returned in [call for call in recorded.calls if call[1].dim() == 0 and call[1].isfinite()]:
        tensors = flat(given, [i for i, _ in inputs])
        arrays = {
            n: np.asarray(tensors[n].detach(), np.int64 if kind == 'tensor(int64)' else np.float32)
            for n, kind in inputs
        }
        np.testing.assert_allclose(session.run(['loss'], arrays)[0], returned.detach(), rtol=1e-5, atol=1e-6)


def flat(given, names):
    """The tensors of a call by the file's input names, such as pred_x and pred_y for a pair."""
    tensors = {}
    for parameter, value in given.items():
        if isinstance(value, tuple):
            prefix = parameter.partition('_')[0]
            tensors |= {f'{prefix}_x': value[0], f'{prefix}_y': value[1]}
        elif isinstance(value, (Tensor, float, int)) and parameter not in ('ignore_index',):
            tensors[parameter] = torch.as_tensor(value)
    assert tensors.keys() == set(names)
    return tensors
