"""Every style of OpenMMLab configs finds our losses, in a process that has not imported lossreg."""

from pathlib import Path

import pytest

CONFIGS = Path(__file__).parents[1] / 'configs'

TEXT = "default_scope = 'mmdet'\nloss = dict(type='lossreg.GIoULoss', loss_weight=2.0)\n"
SCOPED = "default_scope = 'mmdet'\nloss = dict(type='GIoULoss', _scope_='lossreg', loss_weight=2.0)\n"
OWN_SCOPE = "default_scope = 'lossreg'\nloss = dict(type='GIoULoss', loss_weight=2.0)\n"
UNSCOPED = """
custom_imports = dict(imports=['lossreg.unscoped'])
loss = dict(type='GIoULoss', loss_weight=2.0)
"""
PURE_PYTHON = """
from lossreg import GIoULoss
loss = dict(type=GIoULoss, loss_weight=2.0)
"""
BY_PATH = """
_base_ = __import__('lossreg.config').config.config_folder().as_posix() + '/detection/giou_loss.py'
loss = dict(loss_weight=2.0)
"""
RELATIVE = """
from mmengine.config import read_base
with read_base():
    from .base import *
loss.update(loss_weight=2.0)
"""

BUILD = """
import sys
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope
config = Config.fromfile(sys.argv[1])
with DefaultScope.overwrite_default_scope(config.get('default_scope')):
    loss = MODELS.build(config.loss)
print(type(loss).__module__, loss.loss_weight)
"""


@pytest.mark.parametrize(
    'text',
    [TEXT, SCOPED, OWN_SCOPE, UNSCOPED, PURE_PYTHON, BY_PATH, RELATIVE],
    ids=['text', '_scope_', 'default_scope', 'unscoped', 'pure Python', '_base_ by path', 'read_base'],
)
def test_a_config_builds_our_class(run_with_mmengine, text, tmp_path):
    (tmp_path / 'config.py').write_text(text)
    (tmp_path / 'base.py').write_text((CONFIGS / 'detection/giou_loss.py').read_text())
    printed = run_with_mmengine(BUILD, tmp_path / 'config.py')
    # mmengine also logs to stdout
    assert printed.splitlines()[-1] == 'lossreg.losses.detection.giou_loss 2.0'


def test_a_dumped_pure_python_config_names_the_class_with_its_scope(tmp_path):
    from mmengine.config import Config

    (tmp_path / 'config.py').write_text(PURE_PYTHON)
    config = Config.fromfile(tmp_path / 'config.py')
    assert "type='lossreg.GIoULoss'" in config.pretty_text
    (tmp_path / 'dumped.py').write_text(config.pretty_text)
    from lossreg.config import find_losses

    (found,) = find_losses(tmp_path / 'dumped.py')
    assert found.type == 'lossreg.GIoULoss'


THIRD_PARTY = """
from mmengine.registry import MODELS
import lossreg.unscoped
@MODELS.register_module()
class GIoULoss:
    pass
"""


def test_a_name_taken_in_the_root_registry_gives_mmengines_own_error(run_with_mmengine):
    with pytest.raises(AssertionError) as raised:
        run_with_mmengine(THIRD_PARTY)
    *_, last = str(raised.value).strip().splitlines()
    assert last.startswith("KeyError: 'GIoULoss is already registered in model")
