"""mmpose's losses of heatmaps and coordinates: inputs that the specs do not draw, and our differences from it."""

import pytest
import torch
from heads import assert_same_step, both_heads, shipped_config
from pairs import assert_call_agrees, pair_of, real
from shown import shows

from lossreg.losses.pose.keypoint_mse_loss import KeypointMSELoss
from lossreg.registry import build_loss

pytestmark = pytest.mark.openmmlab

pytest.importorskip('mmpose', reason='needs the real OpenMMLab packages: tests/openmmlab/install.sh VENV')


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


HEATMAP_LOSSES = (
    'KeypointMSELoss', 'FocalHeatmapLoss', 'AdaptiveWingLoss', 'KeypointOHKMMSELoss', 'CombinedTargetMSELoss',
)  # fmt: skip
UNSQUEEZING = ('PoseL1Loss', 'PoseSmoothL1Loss', 'SoftWeightSmoothL1Loss')
BROADCASTING = ('PoseMSELoss', 'WingLoss', 'SoftWingLoss', 'MPJPELoss')


# Heatmaps


@pytest.mark.parametrize('name', ['KeypointMSELoss', 'FocalHeatmapLoss'])
@pytest.mark.parametrize('skip', [False, True])
def test_masks_of_every_pixel(name, skip):
    """Bottom-up heads use boolean masks, one for all keypoints or one per keypoint."""
    pair = pair_of(name, 'heatmaps', skip_empty_channel=skip)
    output, target = real(2, 3, 4, 5).sigmoid(), real(2, 3, 4, 5).sigmoid().round()
    target[:, 1] = 0
    for mask in (real(2, 1, 4, 5) > 0, real(2, 3, 4, 5) > 0):
        for weights in (None, real(2, 3).abs(), real(2, 3, 4, 5).abs()):
            assert_call_agrees(pair, output.clone(), target, weights, mask)


@pytest.mark.parametrize('name', ['KeypointMSELoss', 'FocalHeatmapLoss'])
def test_weights_count_wherever_they_are_given(name):
    """CIDHead and others give weights to losses built without use_target_weight, and mmpose uses them."""
    for use in (False, True):
        pair = pair_of(name, 'heatmaps', use_target_weight=use)
        target = real(2, 3, 4, 5).sigmoid()
        assert_call_agrees(pair, real(2, 3, 4, 5).sigmoid(), target, torch.tensor([[1.0, 0.0, 2.0]]).expand(2, 3))


def test_focal_loss_without_a_peak():
    pair = pair_of('FocalHeatmapLoss', 'heatmaps')
    target = real(2, 3, 4, 5).sigmoid() * 0.9
    assert_call_agrees(pair, real(2, 3, 4, 5).sigmoid(), target)
    # the divisor is the weight of the peaks, not their number
    target[:, :, 0, 0] = 1.0
    for weights in (torch.full((2, 3), 0.25), torch.zeros(2, 3)):
        assert_call_agrees(pair, real(2, 3, 4, 5).sigmoid(), target, weights)


def test_hardest_keypoints():
    target = torch.zeros(2, 4, 3, 3, dtype=torch.float64)
    for topk in (1, 3, 4):
        pair = pair_of('KeypointOHKMMSELoss', 'heatmaps', topk=topk, use_target_weight=True)
        assert_call_agrees(pair, real(2, 4, 3, 3), target, torch.tensor([[1.0, 0.0, 0.5, 2.0], [1.0, 1.0, 1.0, 0.0]]))
    with pytest.raises(ValueError, match='topk asks for 8'):
        build_loss('KeypointOHKMMSELoss')(target, target)


@pytest.mark.parametrize('mode', ['linear', 'square', 'log'])
@pytest.mark.parametrize('reduction', ['none', 'mean', 'sum'])
def test_likelihoods(mode, reduction):
    """RTMOHead's distributions; NaN counts as 0, in mmpose and here."""
    pair = pair_of('MLECCLoss', 'pairs', mode=mode, reduction=reduction, use_target_weight=True)
    x, y, t, u = (real(3, 4, size).softmax(-1) for size in (6, 5, 6, 5))
    x[0, 0] = -x[0, 0]
    y[1, 1, 0] = torch.nan
    for weight in (real(3, 4).abs(), real(3).abs()):
        theirs = pair.host((x, y), (t, u), weight)
        assert theirs.isfinite().all()
        torch.testing.assert_close(pair.ours.loss((x, y), (t, u), weight), theirs, rtol=1e-12, atol=0)


def test_heatmap_head():
    from mmengine.structures import InstanceData, PixelData
    from mmpose.structures import PoseDataSample

    path = 'body_2d_keypoint/topdown_heatmap/coco/td-hm_res50_8xb64-210e_coco-256x192.py'
    cfg = shipped_config('mmpose', path).model
    cfg.head.update(in_channels=6, deconv_out_channels=(4, 4, 4))
    shipped, ours = (head.double() for head in both_heads('mmpose', cfg.head))
    assert type(ours.loss_module) is KeypointMSELoss
    samples = []
    for _ in range(3):
        heatmaps = PixelData(heatmaps=real(cfg.head.out_channels, 32, 24).sigmoid())
        labels = InstanceData(keypoint_weights=(torch.rand(1, cfg.head.out_channels) > 0.3).double())
        samples.append(PoseDataSample(gt_fields=heatmaps, gt_instance_labels=labels))
    assert_same_step(shipped, ours, (real(3, 6, 4, 3),), samples)


# Coordinates


@pytest.mark.parametrize('name', UNSQUEEZING)
def test_a_weight_for_each_keypoint(name):
    """IntegralRegressionHead and DSNTHead give (N, K); InternetHead's root depth is (N, 1) throughout."""
    pair = pair_of(name, 'keypoints', use_target_weight=True)
    assert_call_agrees(pair, real(4, 3, 2), real(4, 3, 2), real(4, 3).abs())
    assert_call_agrees(pair, real(4, 1), real(4, 1), real(4, 1).abs())


@pytest.mark.parametrize(
    'name', ['PoseL1Loss', 'PoseSmoothL1Loss', 'SoftWeightSmoothL1Loss', 'PoseMSELoss', 'MPJPELoss']
)
def test_sequences(name):
    """Positions of MotionRegressionHead have four dimensions."""
    pair = pair_of(name, 'keypoints', use_target_weight=True)
    assert_call_agrees(pair, real(2, 5, 3, 3), real(2, 5, 3, 3), real(2, 5, 3, 1).abs())


def test_velocities_of_one_sequence():
    pair = pair_of('MPJPEVelocityJointLoss', 'sequences')
    assert_call_agrees(pair, real(5, 3, 2), real(5, 3, 2))
    weighted = pair_of('MPJPEVelocityJointLoss', 'sequences', use_target_weight=True)
    assert_call_agrees(weighted, real(5, 3, 2), real(5, 3, 2), real(1, 3, 2).abs())


@pytest.mark.parametrize('name', [*UNSQUEEZING, *BROADCASTING, 'MPJPEVelocityJointLoss'])
def test_weights_that_are_not_used(name):
    assert_call_agrees(
        pair_of(name, 'sequences' if 'Velocity' in name else 'keypoints'), real(4, 3, 2), real(4, 3, 2), real(7)
    )
    with pytest.raises(ValueError, match='target_weight is missing'):
        build_loss({'type': name, 'use_target_weight': True})(real(4, 3, 2), real(4, 3, 2))


# Differences


def built(cls, **options):
    """An instance that uses target weights, mmpose's or ours."""
    return cls(use_target_weight=True, **options)


@shows('NaN under a target weight of 0', *HEATMAP_LOSSES)
def test_nan_in_heatmaps_without_weight(ours, host):
    x, t = torch.full((1, 9, 3, 4), 0.5), torch.ones(1, 9, 3, 4)
    x[0, 1, 0, 0] = torch.nan
    weights = torch.ones(1, 3 if 'Combined' in ours.__name__ else 9)
    weights[0, weights.size(1) // 9] = 0
    assert built(host)(x, t, weights).isnan()
    assert built(ours)(x, t, weights).isfinite()


@shows('NaN under a target weight of 0', 'MLECCLoss')
def test_nan_in_weighted_targets(ours, host):
    """mmpose replaces a NaN likelihood by 0, but its gradient is NaN."""
    x, t = torch.full((1, 2, 3), 0.5), torch.full((1, 2, 3), 0.5)
    t[0, 1, 0] = torch.nan
    for cls, is_number in ((host, False), (ours, True)):
        leaf = x.clone().requires_grad_()
        built(cls)((leaf, leaf), (t, t), torch.tensor([[1.0, 0.0]])).sum().backward()
        assert leaf.grad.isfinite().all() == is_number


@shows('NaN under a target weight of 0', *UNSQUEEZING, *BROADCASTING, 'MPJPEVelocityJointLoss')
def test_nan_in_coordinates_without_weight(ours, host):
    x, t = torch.rand(2, 2, 3), torch.rand(2, 2, 3)
    x[:, 1] = torch.nan
    weights = torch.tensor([[[1.0], [0.0]]])
    weights = weights if 'Velocity' in ours.__name__ else weights.expand(2, 2, 1)
    assert built(host)(x, t, weights).isnan()
    assert built(ours)(x, t, weights).isfinite()


@pytest.mark.filterwarnings('ignore:Using a target size')
@shows('inputs of different shapes', *HEATMAP_LOSSES)
def test_heatmaps_of_different_shapes(ours, host):
    x, t = torch.rand(1, 9, 4, 5), torch.rand(1, 9, 1, 1)
    assert host()(x, t, None).isfinite()
    with pytest.raises(ValueError, match='target has shape'):
        ours()(x, t, None)


@shows('inputs of different shapes', 'MLECCLoss')
def test_distributions_of_different_shapes(ours, host):
    x, t = torch.rand(2, 3, 4), torch.rand(2, 3, 1)
    assert host()((x, x), (t, t)).isfinite().all()
    with pytest.raises(ValueError, match='target_x has shape'):
        ours()((x, x), (t, t))


@shows('of one pixel', 'CombinedTargetMSELoss')
def test_weights_of_single_pixels(ours, host):
    x, t, weights = torch.rand(2, 3, 1, 1), torch.rand(2, 3, 1, 1), torch.tensor([[1.0], [0.0]])
    of_first_sample = built(host)(x.expand(2, 3, 1, 2), t.expand(2, 3, 1, 2), weights)
    assert built(host)(x, t, weights) != of_first_sample
    torch.testing.assert_close(built(ours)(x, t, weights), of_first_sample)


@shows('not a multiple of 3', 'CombinedTargetMSELoss')
def test_channels_of_no_keypoint(ours, host):
    x, t = torch.rand(2, 4, 3, 3), torch.rand(2, 4, 3, 3)
    assert host()(x, t, None) == host()(x[:, :3], t[:, :3], None)
    with pytest.raises(ValueError, match='must be a multiple of 3'):
        ours()(x, t)


@pytest.mark.filterwarnings('ignore:Using a target size')
@shows('inputs of different shapes', *UNSQUEEZING, *BROADCASTING, 'MPJPEVelocityJointLoss')
def test_coordinates_of_different_shapes(ours, host):
    """TrajectoryRegressionHead with several joints in the label: one output would be compared with each of them."""
    x, t = torch.rand(2, 1, 3), torch.rand(2, 4, 3)
    assert host()(x, t).isfinite()
    with pytest.raises(ValueError, match='target has shape'):
        ours()(x, t)


@shows('takes 1 in any dimension', 'KeypointMSELoss', 'FocalHeatmapLoss')
def test_masks_that_are_broadcast(ours, host):
    x, t, mask = torch.rand(2, 3, 4, 5), torch.rand(2, 3, 4, 5), torch.ones(1, 1, 4, 5)
    assert host()(x, t, None, mask).isfinite()
    with pytest.raises(ValueError, match='mask has shape'):
        ours()(x, t, None, mask)


@shows('target_weight (N, K)', *BROADCASTING)
def test_a_weight_for_each_keypoint_where_mmpose_broadcasts(ours, host):
    x, t, weights = torch.rand(2, 2, 2), torch.rand(2, 2, 2), torch.rand(2, 2)
    assert built(ours)(x, t, weights) == built(ours)(x, t, weights.unsqueeze(-1))
    assert built(ours)(x, t, weights) != built(host)(x, t, weights)
    assert built(host)(x, t, weights) == built(host)(x, t, weights.expand(2, 2, 2))


@shows('weights of each frame', 'MPJPEVelocityJointLoss')
def test_weights_of_each_frame(ours, host):
    x, t, weights = torch.rand(2, 5, 3, 2), torch.rand(2, 5, 3, 2), torch.rand(2, 5, 3, 1)
    with pytest.raises(RuntimeError, match='must match'):
        built(host)(x, t, weights)
    steady = built(ours)(x, t, torch.full_like(weights, 0.3))
    torch.testing.assert_close(steady, built(host)(x, t, torch.full((2, 1, 3, 1), 0.3)))
    # with two frames, there is no velocity if one does not count
    weights = torch.ones(1, 2, 3, 1)
    weights[0, 1] = 0
    of_first_frame = (x - t)[:1, 0].norm(dim=-1).mean() / 2
    torch.testing.assert_close(built(ours, lambda_scale=0.0)(x[:1, :2], t[:1, :2], weights), of_first_frame)


@shows('the scale of a pose', 'MPJPEVelocityJointLoss')
def test_scale_of_the_joints_that_count(ours, host):
    x, t = torch.rand(1, 2, 2, 3), torch.rand(1, 2, 2, 3)
    weights = torch.tensor([1.0, 0.0]).view(1, 1, 2, 1)
    elsewhere = x.clone()
    elsewhere[:, :, 1] += 5
    assert built(host)(x, t, weights) != built(host)(elsewhere, t, weights)
    assert built(ours)(x, t, weights) == built(ours)(elsewhere, t, weights)
