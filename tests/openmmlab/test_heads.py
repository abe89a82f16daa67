"""Our losses where they will work: inside the heads of the real packages, found by type names in real configs."""

import copy
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope
from mmengine.structures import InstanceData
from torch import Tensor, nn

from lossreg.__main__ import main
from lossreg.losses.pose.kl_discret_loss import KLDiscretLoss

pytestmark = pytest.mark.openmmlab

HERE = Path(__file__).parent

for _package in ('mmdet', 'mmpose'):
    pytest.importorskip(_package, reason='needs the real OpenMMLab packages: tests/openmmlab/install.sh VENV')


def shipped_file(package: str, path: str) -> Path:
    """A config file as the package's wheel carries it."""
    return Path(importlib.util.find_spec(package).origin).parent / '.mim' / 'configs' / path


def shipped_config(package: str, path: str) -> Config:
    """That config, read."""
    return Config.fromfile(shipped_file(package, path))


def with_our_losses(head: dict[str, Any]) -> dict[str, Any]:
    """The same head, with ``lossreg.`` before the type of each of its losses."""
    ours = copy.deepcopy(head)
    for name, value in ours.items():
        if name.startswith('loss'):
            value['type'] = f'lossreg.{value["type"]}'
    return ours


def both_heads(package: str, cfg: dict[str, Any]) -> tuple[nn.Module, nn.Module]:
    """The head as shipped, and with our losses and the same weights."""
    with DefaultScope.overwrite_default_scope(package):
        shipped, ours = MODELS.build(cfg), MODELS.build(with_our_losses(cfg))
    assert shipped.state_dict().keys() == ours.state_dict().keys()
    ours.load_state_dict(shipped.state_dict())
    return shipped, ours


def losses_and_gradients(head: nn.Module, features: tuple[Tensor, ...], samples: list[Any]) -> dict[str, Tensor]:
    """What one training step of the head computes: its losses, and the gradient of their sum for each parameter."""
    losses = head.loss(features, samples)
    flat = {
        f'{name}[{i}]': value
        for name, values in losses.items()
        for i, value in enumerate(values if isinstance(values, list) else [values])
    }
    sum(value for name, value in flat.items() if 'loss' in name).backward()
    return {n: v.detach() for n, v in flat.items()} | {n: p.grad for n, p in head.named_parameters()}


def assert_same_step(shipped: nn.Module, ours: nn.Module, features: tuple[Tensor, ...], samples: list[Any]) -> None:
    """Both heads compute the same losses and gradients, none of which is missing."""
    want, got = (losses_and_gradients(head, features, samples) for head in (shipped, ours))
    assert got.keys() == want.keys()
    for name, value in want.items():
        atol = 1e-6 * value.abs().max().item()
        torch.testing.assert_close(
            got[name], value, rtol=1e-6, atol=atol, msg=lambda text, name=name: f'{name}: {text}'
        )
    assert any(value.any() for name, value in want.items() if 'loss' not in name)


def test_rtmpose_head():
    from mmpose.structures import PoseDataSample

    cfg = shipped_config('mmpose', 'body_2d_keypoint/rtmpose/coco/rtmpose-s_8xb256-420e_coco-256x192.py').model
    torch.manual_seed(0)
    shipped, ours = both_heads('mmpose', cfg.head)
    assert type(ours.loss_module) is KLDiscretLoss
    assert type(shipped.loss_module) is not KLDiscretLoss

    # In double precision: in float32 the one scale of the whole layer is a sum that cancels to 2e-6.
    shipped, ours = shipped.double(), ours.double()
    width, height = (int(size * cfg.head.simcc_split_ratio) for size in cfg.head.input_size)
    joints = cfg.head.out_channels
    samples = []
    for _ in range(3):
        labels = InstanceData(
            keypoint_x_labels=gaussian(torch.rand(1, joints, 1) * width, width, sigma=4.9),
            keypoint_y_labels=gaussian(torch.rand(1, joints, 1) * height, height, sigma=5.66),
            keypoint_weights=(torch.rand(1, joints) > 0.3).double(),
        )
        samples.append(PoseDataSample(gt_instance_labels=labels))
    features = torch.randn(3, cfg.head.in_channels, *reversed(cfg.head.in_featuremap_size)).double()
    assert_same_step(shipped, ours, (features,), samples)


def gaussian(centre: Tensor, size: int, sigma: float) -> Tensor:
    """SimCC's labels: a bump around each centre."""
    return torch.exp(-((torch.arange(size) - centre.double()) ** 2) / (2 * sigma**2))


def test_atss_head():
    """Focal, GIoU and sigmoid cross-entropy in one head, with the averages and empty levels of a real assignment."""
    from mmdet.structures import DetDataSample

    cfg = shipped_config('mmdet', 'atss/atss_r50_fpn_1x_coco.py').model
    cfg.bbox_head.update(train_cfg=cfg.train_cfg, test_cfg=cfg.test_cfg)
    torch.manual_seed(0)
    shipped, ours = both_heads('mmdet', cfg.bbox_head)
    for name in ('loss_cls', 'loss_bbox', 'loss_centerness'):
        assert type(getattr(ours, name)).__module__.startswith('lossreg.')

    samples = []
    for _ in range(2):
        sample = DetDataSample(metainfo={'img_shape': (128, 128), 'pad_shape': (128, 128)})
        boxes = torch.tensor([[8.0, 8.0, 60.0, 70.0], [40.0, 30.0, 120.0, 100.0]])
        sample.gt_instances = InstanceData(bboxes=boxes, labels=torch.tensor([1, 5]))
        samples.append(sample)
    features = tuple(torch.randn(2, cfg.bbox_head.in_channels, size, size) for size in (16, 8, 4, 2, 1))
    assert_same_step(shipped, ours, features, samples)


def run(code: str) -> list[str]:
    """The words a fresh interpreter prints; the registries of this one are full already."""
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
    """``lossreg check`` on a whole model's config: ours with the config's arguments, by the host's call, everywhere."""
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
