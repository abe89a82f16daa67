"""Losses of heatmaps and keypoints: by hand, and on inputs that specs do not draw."""

import math

import numpy as np
import pytest
import torch
from gradients import with_gradient
from torch import tensor

from lossreg.registry import build_loss
from lossreg.runtimes import load

NAN = math.nan


def heatmap(*pixels):
    """One sample, one keypoint, one row."""
    return tensor([[[list(pixels)]]])


# The numbers


def test_heatmaps_by_hand():
    x, t = heatmap(0.5, 0.25), heatmap(1.0, 0.5)
    weight, mask = tensor([[2.0]]), heatmap(1.0, 0.0)
    mse = build_loss('KeypointMSELoss')
    assert mse(x, t).item() == (0.25 + 0.0625) / 2
    assert mse(x, t, weight, mask).item() == 2 * 0.25 / 2
    assert build_loss({'type': 'KeypointMSELoss', 'skip_empty_channel': True})(x, 0 * t).item() == 0
    # (1 - x)^2 -log x at the peak, (1 - t)^4 x^2 -log(1 - x) beside it
    beside = 0.5**4 * 0.25**2 * -math.log(0.75)
    assert build_loss('FocalHeatmapLoss')(x, t).item() == pytest.approx(0.25 * math.log(2) + beside)
    assert build_loss('FocalHeatmapLoss')(x, 0.5 * t).item() == pytest.approx(
        0.5**4 * 0.25 * math.log(2) + 0.75**4 * 0.25**2 * -math.log(0.75)
    )
    # d = 1/2 is where the line begins; its power is 1.1 at a target of 1
    at_bend = 14 * math.log(1 + 0.5**1.1)
    slope = 14 * 1.1 / 0.5 * 0.5**1.1 / (1 + 0.5**1.1)
    assert build_loss('AdaptiveWingLoss')(heatmap(0.5), heatmap(1.0)).item() == pytest.approx(at_bend)
    assert build_loss('AdaptiveWingLoss')(heatmap(-1.0), heatmap(1.0)).item() == pytest.approx(at_bend + 1.5 * slope)


def test_offsets_by_hand():
    output = tensor([1.0, 4.0, 9.0]).view(1, 3, 1, 1)
    target = tensor([0.5, 2.0, 5.0]).view(1, 3, 1, 1)
    # 1/2 (0.5^2 + (0.5 * 2)^2 + (0.5 * 4)^2), weighted before squaring
    assert build_loss('CombinedTargetMSELoss')(output, target).item() == 0.5 * (0.25 + 1.0 + 4.0)
    weighted = build_loss({'type': 'CombinedTargetMSELoss', 'use_target_weight': True})
    assert weighted(output, target, tensor([[2.0]])).item() == 4 * 0.5 * (0.25 + 1.0 + 4.0)


def test_coordinates_by_hand():
    x, t, weight = tensor([[[3.0, 4.0], [NAN, 1.0]]]), tensor([[[0.0, 0.0], [1.0, 1.0]]]), tensor([[2.0, 0.0]])
    for name, expected in {
        'PoseL1Loss': (6 + 8) / 4,
        'PoseMSELoss': (36 + 64) / 4,
        'PoseSmoothL1Loss': (5.5 + 7.5) / 4,
        'SoftWeightSmoothL1Loss': 2 * (2.5 + 3.5) / 4,
        'WingLoss': 10 * math.log(4) + 10 * math.log(5),
        'SoftWingLoss': 4 - 40 * math.log(5) + 20 * math.log(13) + 20 * math.log(17),
        'MPJPELoss': 10 / 2,
    }.items():
        loss = build_loss({'type': name, 'use_target_weight': True})
        for given in (weight, weight.unsqueeze(-1), weight.unsqueeze(-1).expand_as(x)):
            value, gradient = with_gradient(loss, x, t, given)
            assert value.item() == pytest.approx(expected), name
            assert not gradient[0, 1].any(), name


def test_the_mean_over_weights_counts_weights():
    """As in mmpose: a keypoint's weight counts once, each coordinate's by itself; without weights, the sum is 0."""
    loss = build_loss({'type': 'SoftWeightSmoothL1Loss', 'use_target_weight': True, 'supervise_empty': False})
    x, t, weight = tensor([[[3.0, 4.0], [NAN, 1.0]]]), torch.zeros(1, 2, 2), tensor([[2.0, 0.0]])
    assert loss(x, t, weight).item() == 2 * (2.5 + 3.5) / 1
    assert loss(x, t, weight.unsqueeze(-1).expand_as(x)).item() == 2 * (2.5 + 3.5) / 2
    assert loss(x, t, 0 * weight).item() == 0


def test_velocities_by_hand():
    x = tensor([[[[1.0]], [[3.0]], [[NAN]]]])
    t = tensor([[[[1.0]], [[1.0]], [[1.0]]]])
    loss = build_loss({'type': 'MPJPEVelocityJointLoss', 'use_target_weight': True})
    # positions: 2 of 3; scales 1 and 1/3 bring both to their targets; velocities: 2 of 2
    assert loss(x, t, tensor([1.0, 1.0, 0.0]).view(1, 3, 1, 1)).item() == pytest.approx(2 / 3 + 20 * 2 / 2)
    single, gradient = with_gradient(build_loss('MPJPEVelocityJointLoss'), x[:, 1:2], t[:, 1:2])
    assert single.item() == 2.0
    assert gradient.isfinite().all()


# Points without derivative, and non-finite numbers


def test_nothing_to_tell_apart_is_finite():
    """Equal points, poses of zeros, perfect heatmaps, and probabilities of 0 and 1."""
    zeros = torch.zeros(1, 2, 3, 2)
    for name in ('MPJPELoss', 'MPJPEVelocityJointLoss', 'WingLoss'):
        point = zeros if 'Velocity' in name else zeros[0]
        value, gradient = with_gradient(build_loss(name), point, point)
        assert value.item() == 0
        assert not gradient.any()
    # 2 t exceeds alpha - 1, so the power is below 1 at an error of 0; at alpha it is 0, and 0^0 is 1
    for alpha, expected in {2.5: 0.0, 2.0: 14 * math.log(2)}.items():
        wing = build_loss({'type': 'AdaptiveWingLoss', 'use_target_weight': True, 'alpha': alpha})
        value, gradient = with_gradient(wing, heatmap(1.0), heatmap(1.0), tensor([[2.0]]))
        assert value.item() == pytest.approx(expected)
        assert not gradient.any()
    value, gradient = with_gradient(build_loss('FocalHeatmapLoss'), heatmap(0.0, 1.0), heatmap(1.0, 0.0))
    assert value.item() == 200.0  # twice the largest -log 0
    assert gradient.isfinite().all()


def test_hardest_keypoints_include_nan():
    loss = build_loss({'type': 'KeypointOHKMMSELoss', 'topk': 1})
    x = tensor([1.0, NAN, 3.0]).view(1, 3, 1, 1)
    assert loss(x, torch.zeros(1, 3, 1, 1)).isnan()
    assert loss(x.nan_to_num(2.0), torch.zeros(1, 3, 1, 1)).item() == 9.0


def test_a_likelihood_that_is_no_number_counts_as_0():
    """NaN, or a negative one in the logarithm, counts as 0, as in mmpose, and has gradient 0."""
    x, t = tensor([[[0.25, 0.75], [NAN, 1.0], [-1.0, 0.0]]]), tensor([[[1.0, 0.0]] * 3])
    y = torch.ones(1, 3, 1)
    loss = build_loss({'type': 'MLECCLoss', 'reduction': 'none'})
    value, gradient = with_gradient(lambda leaf: loss((leaf, y), (t, y)), x)
    assert value[0].tolist() == pytest.approx([-math.log(0.2501), 0.0, 0.0])
    assert gradient[0, 0].tolist() == pytest.approx([-1 / 0.2501, 0.0])
    assert not gradient[0, 1:].any()


# Shapes


@pytest.mark.parametrize(
    ('name', 'arguments', 'message'),
    [
        ('KeypointMSELoss', (torch.zeros(2, 3, 4, 5), torch.zeros(2, 3, 4, 5), torch.zeros(2, 3, 1)), 'target_weights'),
        (
            'KeypointMSELoss',
            (*[torch.zeros(2, 3, 4, 5)] * 2, None, torch.zeros(2, 4, 5)),
            r'mask has shape \[2, 4, 5\]',
        ),
        ('KeypointOHKMMSELoss', (torch.zeros(2, 3, 4, 5), torch.zeros(2, 3, 4, 5)), r'topk asks for 8 in dimension 1'),
        ('CombinedTargetMSELoss', (torch.zeros(2, 4, 4, 5), torch.zeros(2, 4, 4, 5)), 'must be a multiple of 3'),
        ('WingLoss', (torch.zeros(2, 3), torch.zeros(2, 3)), 'output .* must have 3 dimensions'),
        ('MPJPEVelocityJointLoss', (torch.zeros(2, 3), torch.zeros(2, 3)), 'must have frames'),
    ],
)
def test_shapes_that_do_not_fit(name, arguments, message):
    loss = build_loss(name)
    with pytest.raises(ValueError, match=message):
        loss(*arguments)
    with pytest.raises(torch.jit.Error, match=message):
        torch.jit.script(loss)(*arguments)


@pytest.mark.parametrize('keypoints', [1, 2, 4])
def test_weights_of_other_keypoints(exported, keypoints):
    """Three channels per weight cannot share a dimension's name, so the loss itself compares them in every format."""
    maps, weights = torch.rand(2, 9, 4, 5), torch.ones(2, keypoints)
    message = r'target_weights has shape .* 3 times'
    loss = build_loss({'type': 'CombinedTargetMSELoss', 'use_target_weight': True})
    with pytest.raises(ValueError, match=message):
        loss(maps, maps, weights)
    with pytest.raises(torch.jit.Error, match=message):
        torch.jit.script(loss)(maps, maps, weights)
    inputs = {'output': maps, 'target': 0 * maps, 'target_weights': weights}
    for suffix in ('pt2', 'onnx'):
        runtime = load(exported('CombinedTargetMSELoss', True, 'weighted')[suffix], suffix)
        try:
            found = runtime(inputs)
        except Exception:  # each runtime has its own errors
            continue
        assert all(np.isnan(value).any() for value in found.values()), suffix
