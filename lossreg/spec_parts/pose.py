"""What mmpose's heads call losses with, and how ours differ."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from lossreg.spec import EMPTY, Call, Difference, Input, Role, always


def uses_target_weight(loss: Any) -> bool:
    """Whether an instance takes ``target_weight`` into account, and so needs it."""
    return bool(loss.use_target_weight)


def _keypoint_call(name: str, shape: str, weight_shape: str, when: Callable[[Any], bool] = always) -> Call:
    """A call with predicted and true coordinates, and weights where the instance uses them."""
    return Call(
        name,
        (
            Input('output', Role.LOGITS, shape, differentiable=True),
            Input('target', Role.LOGITS, shape),
            # one weight a keypoint is what most heads give
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
        consistent: what must be replaced among the inputs drawn.
    """
    heatmaps = Input('output', role, shape, differentiable=True), Input('target', Role.TARGETS, shape)
    return Call(name, (*heatmaps, *weights), when=when, consistent=consistent)


WEIGHT_OF_KEYPOINTS = Input('target_weights', Role.WEIGHTS, 'N K', when=uses_target_weight)
"""The weights that HeatmapHead gives with heatmaps, where the instance uses them."""

WEIGHT_OF_PIXELS = Input('target_weights', Role.WEIGHTS, 'N K H W', when=uses_target_weight)
"""The same of DEKRHead."""


def weight_of_keypoints(host: str, test: str) -> Difference:
    """The difference from those of mmpose's losses of coordinates that leave weights to broadcasting."""
    return Difference(
        host,
        'target_weight (N, K) holds a weight for each keypoint, as in the L1 losses; mmpose aligns it with (K, D)',
        'contract 5: where the sizes happen to fit, it would weigh the wrong elements',
        test,
    )
