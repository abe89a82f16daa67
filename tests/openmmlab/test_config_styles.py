"""Configs of an installed wheel, with the setuptools that mmengine's absolute ``read_base`` still needs."""

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.openmmlab

pytest.importorskip('mmdet', reason='needs the real OpenMMLab packages: tests/openmmlab/install.sh VENV')

ROOT = Path(__file__).parents[2]

ABSOLUTE = """
from mmengine.config import read_base
with read_base():
    from lossreg.configs.detection.giou_loss import *
loss.update(loss_weight=2.0)
"""

BUILD = """
import sys
from mmengine.config import Config
from mmengine.registry import MODELS
loss = MODELS.build(Config.fromfile(sys.argv[1]).loss)
print(type(loss).__module__, loss.loss_weight)
"""


@pytest.fixture(scope='module')
def wheel(tmp_path_factory):
    """A folder with lossreg installed from its wheel."""
    folder = tmp_path_factory.mktemp('wheel')
    command = [sys.executable, '-m', 'pip', 'install', '--quiet', '--no-deps', '--target', folder, ROOT]
    subprocess.run(command, check=True, capture_output=True)
    return folder


def test_the_wheel_ships_configs_tools_and_index(wheel):
    mim = wheel / 'lossreg/.mim'
    assert (mim / 'configs/detection/giou_loss.py').exists()
    assert (mim / 'tools/to_onnx.py').exists()
    assert (mim / 'model-index.yml').read_text()


def test_absolute_read_base(wheel, tmp_path):
    (tmp_path / 'config.py').write_text(ABSOLUTE)
    run = subprocess.run(
        [sys.executable, '-W', 'ignore', '-c', BUILD, str(tmp_path / 'config.py')],
        capture_output=True,
        text=True,
        env={'PYTHONPATH': str(wheel), 'PATH': ''},
        cwd=tmp_path,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.splitlines()[-1] == 'lossreg.losses.detection.giou_loss 2.0'
