"""Our losses in mmpose's heads and distiller, from the configs in its wheel."""

import pytest
import torch
from heads import assert_same_step, both_heads, built, shipped_config, with_our_losses
from mmengine.config import Config
from mmengine.logging import MessageHub
from mmengine.structures import InstanceData
from pairs import real
from torch import Tensor

pytestmark = pytest.mark.openmmlab

pytest.importorskip('mmpose', reason='needs the real OpenMMLab packages: tests/openmmlab/install.sh VENV')


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


def gaussian(centre: Tensor, size: int, sigma: float) -> Tensor:
    """SimCC's labels: a Gaussian around each centre."""
    return torch.exp(-((torch.arange(size) - centre.double()) ** 2) / (2 * sigma**2))


def samples_of(joints: int, hidden: float = 0.3, **sizes: int):
    """Three samples of one person each, labelled along every axis with a size; some keypoints are invisible."""
    from mmpose.structures import PoseDataSample

    samples = []
    for _ in range(3):
        labels = InstanceData(
            keypoint_labels=real(1, joints, 2).sigmoid(), keypoint_weights=(torch.rand(1, joints) >= hidden).double()
        )
        for name, size in sizes.items():
            labels.set_field(gaussian(torch.rand(1, joints, 1) * size, size, sigma=5.0), f'keypoint_{name}_labels')
        samples.append(PoseDataSample(gt_instance_labels=labels))
    return samples


@pytest.mark.parametrize(
    'config',
    ['simcc/coco/simcc_res50_8xb64-210e_coco-256x192.py', 'rtmpose/coco/rtmpose-s_8xb256-420e_coco-256x192.py'],
)
def test_heads_of_two_axes(config):
    """In double precision: in float32, the single scale of an RTMPose layer is a sum that cancels to 2e-6."""
    head = shipped_config('mmpose', f'body_2d_keypoint/{config}').model.head
    head.update(in_channels=8)
    shipped, ours = (h.double() for h in both_heads('mmpose', head))
    width, height = (int(size * head.simcc_split_ratio) for size in head.input_size)
    features = real(3, head.in_channels, *reversed(head.in_featuremap_size))
    samples = samples_of(head.out_channels, x=width, y=height)
    assert assert_same_step(shipped, ours, (features,), samples) == {'KLDiscretLoss'}


@pytest.mark.parametrize(
    ('config', 'used'),
    [
        ('td-reg_res50_8xb64-210e_coco-256x192.py', {'PoseSmoothL1Loss'}),
        ('td-reg_res50_rle-8xb64-210e_coco-256x192.py', {'RLELoss', 'RealNVP'}),
    ],
)
def test_heads_of_coordinates(config, used):
    """In double precision, because the logarithms in mmpose's flow cancel."""
    head = shipped_config('mmpose', f'body_2d_keypoint/topdown_regression/coco/{config}').model.head
    head.update(in_channels=8)
    shipped, ours = (h.double() for h in both_heads('mmpose', head))
    # RLE trains a flow, which checkpoints hold
    assert any('flow' in name for name in ours.state_dict()) == ('RealNVP' in used)
    assert assert_same_step(shipped, ours, (real(3, 8, 1, 1),), samples_of(head.num_joints)) == used


# DWPose


def narrow(config: Config) -> Config:
    """RTMPose with another width and without GPU-only layers; its features have 1024 times that width."""
    width = {768: 0.03125, 1024: 0.0625}[config.model.head.in_channels]
    config.model.backbone.update(deepen_factor=0.1, widen_factor=width, norm_cfg={'type': 'BN'}, init_cfg=None)
    config.model.head.update(in_channels=int(1024 * width), out_channels=5)
    return config


def distillers(path, tmp_path):
    """A shipped distiller with narrow models, which it reads from files, and the same with our losses."""
    cfg = shipped_config('mmpose', f'wholebody_2d_keypoint/dwpose/{path}').model
    channels = {}
    for model in ('teacher', 'student'):
        config = narrow(shipped_config('mmpose', cfg[f'{model}_cfg'].removeprefix('configs/')))
        channels[model] = config.model.head.in_channels
        config.dump(tmp_path / f'{model}.py')
        Config({'model': with_our_losses('mmpose', config.model)}).dump(tmp_path / f'our_{model}.py')
    for method in (m for place in cfg.distill_cfg for m in place.methods if m.type == 'FeaLoss'):
        method.update({f'{model}_channels': count for model, count in channels.items()})
    files = ({f'{m}_cfg': str(tmp_path / f'{prefix}{m}.py') for m in channels} for prefix in ('', 'our_'))
    return (
        built('mmpose', {**config, **paths}).double()
        for config, paths in zip((cfg, with_our_losses('mmpose', cfg)), files, strict=True)
    )


@pytest.mark.parametrize(
    ('config', 'used'),
    [
        ('coco-wholebody/s1_dis/dwpose_l_dis_m_coco-256x192.py', {'KLDiscretLoss', 'FeaLoss', 'KDLoss'}),
        ('coco-wholebody/s2_dis/dwpose_m-mm_coco-256x192.py', {'KLDiscretLoss', 'KDLoss'}),
    ],
)
def test_dwpose(config, used, tmp_path):
    """Both stages: losses of maps and logits fade over the epochs; then only the head learns, from its own model.

    All keypoints are visible, because mmpose's KDLoss ignores the weights that the distiller gives it; ours does not.
    """
    shipped, ours = distillers(config, tmp_path)
    ours.load_state_dict(shipped.state_dict())
    MessageHub.get_current_instance().update_info_dict({'epoch': 1, 'max_epochs': 4})
    samples = samples_of(5, hidden=0.0, x=384, y=512)
    assert assert_same_step(shipped.train(), ours.train(), real(3, 3, 256, 192), samples) == used
