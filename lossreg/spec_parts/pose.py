"""Calls of mmpose's heads, and differences from mmpose's losses."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from lossreg.ops.weights import weight_of_leading
from lossreg.spec import EMPTY, Call, Difference, Input, Role, always

TEST_OF_DIFFERENCES = 'tests/openmmlab/test_mmpose_regression.py'
"""The tests of the differences from mmpose's losses of coordinates and heatmaps."""


def uses_target_weight(loss: Any) -> bool:
    """Whether an instance uses ``target_weight``, and so requires it."""
    return bool(loss.use_target_weight)


def _keypoint_call(name: str, shape: str, weight_shape: str, when: Callable[[Any], bool] = always) -> Call:
    """A call with predicted and true coordinates, and weights where the instance uses them."""
    return Call(
        name,
        (
            Input('output', Role.LOGITS, shape, differentiable=True),
            Input('target', Role.LOGITS, shape),
            # most heads pass one weight per keypoint
            Input('target_weight', Role.WEIGHTS, weight_shape, broadcasts=(shape[-1],), when=uses_target_weight),
        ),
        when=when,
    )


KEYPOINT_CALLS = (
    _keypoint_call('keypoints', 'N K D', 'N K 1'),
    _keypoint_call('coordinate_weights', 'N K D', 'N K D', when=uses_target_weight),
)
"""The calls of mmpose's losses of coordinates: RegressionHead's, and the one that mmpose documents."""

JOINT_WEIGHTS_CALL = _keypoint_call('joint_weights', 'N K D', 'N K', when=uses_target_weight)
"""DSNTHead's call, inside MultipleLossWrapper, of the losses that take it in mmpose."""

MAP_CALL = _keypoint_call('maps', 'N C H W', 'N C H W')
"""DEKRHead's call: a map of offsets for each coordinate, and weights of the same shape."""


def heatmap_call(
    name: str,
    *weights: Input,
    role: Role = Role.LOGITS,
    shape: str = 'N K H W',
    when: Callable[[Any], bool] = always,
    consistent: Callable[[Any, Mapping[str, Tensor]], Mapping[str, Tensor]] = lambda loss, drawn: EMPTY,
) -> Call:
    """A call of a loss of heatmaps.

    Args:
        name: the call's name.
        weights: the inputs after prediction and target.
        role: of the prediction.
        shape: of prediction and target.
        when: which instances allow it.
        consistent: replaces drawn inputs that must fit together.
    """
    heatmaps = Input('output', role, shape, differentiable=True), Input('target', Role.TARGETS, shape)
    return Call(name, (*heatmaps, *weights), when=when, consistent=consistent)


WEIGHT_OF_KEYPOINTS = Input('target_weights', Role.WEIGHTS, 'N K', when=uses_target_weight)
"""The weights that HeatmapHead passes with heatmaps, where the instance uses them."""

WEIGHT_OF_PIXELS = Input('target_weights', Role.WEIGHTS, 'N K H W', when=uses_target_weight)
"""The same of DEKRHead."""


def weight_of_keypoints(host: str, test: str) -> Difference:
    """The difference from those of mmpose's coordinate losses that broadcast weights."""
    return Difference(
        host,
        'target_weight (N, K) holds a weight for each keypoint, as in the L1 losses; mmpose aligns it with (K, D)',
        'contract 5: where the sizes happen to fit, it would weigh the wrong elements',
        test,
    )


def sigma_sizes(loss: Any) -> Mapping[str, int]:
    """An instance's sigmas fix the number of keypoints."""
    return {} if loss.sigmas is None else {'K': loss.sigmas.numel()}


def with_empty_channels(loss: Any, drawn: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """The drawn targets; if the instance skips empty channels, every other one is emptied."""
    if not loss.skip_empty_channel:
        return EMPTY
    target = drawn['target']
    samples, keypoints = torch.arange(target.size(0)), torch.arange(target.size(1))
    occupied = (samples.unsqueeze(1) + keypoints) % 2 == 0
    return {'target': target * weight_of_leading(occupied, target, 'occupied', 'target')}


def masked_heatmap_calls(role: Role) -> tuple[Call, ...]:
    """The calls of HeatmapHead and AEHead, with weights of keypoints, and of DEKRHead, with weights of pixels.

    Args:
        role: of the heatmaps predicted.
    """
    mask = Input('mask', Role.WEIGHTS, 'N 1 H W', optional=True)
    of_keypoints = Input('target_weights', Role.WEIGHTS, 'N K', optional=True)
    of_pixels = Input('target_weights', Role.WEIGHTS, 'N K H W')
    return (
        heatmap_call('heatmaps', of_keypoints, mask, role=role, consistent=with_empty_channels),
        heatmap_call('pixel_weights', of_pixels, mask, role=role, consistent=with_empty_channels),
    )


def narrow_masks(host: str) -> Difference:
    """The difference from mmpose, where each dimension of a mask may be 1."""
    return Difference(
        host,
        'a mask has the shape of the heatmaps, or 1 in place of the keypoints; mmpose takes 1 in any dimension',
        'contract 5: nothing is broadcast silently, beyond what the host documents',
        TEST_OF_DIFFERENCES,
    )
