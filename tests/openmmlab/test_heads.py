"""Our losses by name in real configs, with the real packages installed. Heads are in ``test_heads_*``."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from heads import shipped_file
from mmengine.config import Config
from mmengine.registry import MODELS

from lossreg.__main__ import main
from lossreg.losses.pose.kl_discret_loss import KLDiscretLoss

pytestmark = pytest.mark.openmmlab

HERE = Path(__file__).parent

for _package in ('mmdet', 'mmpose'):
    pytest.importorskip(_package, reason='needs the real OpenMMLab packages: tests/openmmlab/install.sh VENV')


def run(code: str) -> list[str]:
    """The words that a fresh interpreter prints, because this one's registries are already filled."""
    path = os.pathsep.join([str(HERE), str(HERE.parents[1])])
    done = subprocess.run(
        [sys.executable, '-W', 'ignore', '-c', code],
        env={**os.environ, 'PYTHONPATH': path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


BUILD = "print(type(MODELS.build(dict(type='{}'))).__module__)"
OURS = 'lossreg.losses.pose.kl_discret_loss'


def test_scoped_name_needs_no_import():
    code = 'from mmengine.registry import MODELS\n' + BUILD.format('lossreg.KLDiscretLoss')
    assert run(code) == [OURS]


def test_plain_name_after_the_opt_in():
    code = 'import lossreg.unscoped\nfrom mmengine.registry import MODELS\n' + BUILD.format('KLDiscretLoss')
    assert run(code) == [OURS]


def test_plain_name_stays_the_hosts():
    code = f"""
import shim; shim.install()
import mmpose.models, lossreg.unscoped
from mmengine.registry import MODELS, DefaultScope
DefaultScope.get_instance('test', scope_name='mmpose')
{BUILD.format('KLDiscretLoss')}
{BUILD.format('lossreg.KLDiscretLoss')}
"""
    assert run(code) == ['mmpose.models.losses.classification_loss', OURS]


def test_pure_python_config(tmp_path):
    path = tmp_path / 'config.py'
    path.write_text(
        'from mmengine.config import read_base\n\n'
        'with read_base():\n    from .base import *\n\n'
        f'from {OURS} import KLDiscretLoss\n\n'
        'loss = dict(type=KLDiscretLoss, beta=10.0)\n'
    )
    (tmp_path / 'base.py').write_text('epochs = 1\n')
    cfg = Config.fromfile(path)
    loss = MODELS.build(cfg.loss)
    assert type(loss) is KLDiscretLoss
    assert loss.beta == 10.0


def test_check_finds_the_loss_of_a_shipped_config(capsys):
    """``lossreg check`` on a model's config checks our losses with the config's arguments and the host's calls."""
    config = str(shipped_file('mmpose', 'body_2d_keypoint/rtmpose/coco/rtmpose-s_8xb256-420e_coco-256x192.py'))
    assert main(['check', config, '--json']) == 0
    rows = json.loads(capsys.readouterr().out)['rows']
    assert {(row['loss'], row['variant'], row['call'], row['host']) for row in rows} == {
        ('KLDiscretLoss', 'rtmpose', 'pairs', 'mmpose.KLDiscretLoss')
    }
    assert {row['backend'] for row in rows} == {'eager', 'torchscript', 'pt2', 'ort-cpu'}
    assert {row['status'] for row in rows} == {'pass'}
    assert main(['migrate', config]) == 0
    assert "+            type='lossreg.KLDiscretLoss'," in capsys.readouterr().out
