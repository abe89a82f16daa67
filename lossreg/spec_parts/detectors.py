"""Calls of OpenMMLab's detectors (mmdet, mmdet3d, mmrotate), and differences from their losses."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from lossreg.spec import Call, Difference, Input, Role, Tolerance

AVG_FACTOR = Input('avg_factor', Role.AVG_FACTOR, '', optional=True, when=lambda loss: loss.reduction == 'mean')
"""The divisor of a mean in OpenMMLab's detectors."""


def zero_avg_factor(host: str) -> Difference:
    """The difference of every loss that is averaged by ``avg_factor``."""
    return Difference(
        host,
        f'avg_factor=0 gives 0; {host.partition(".")[0]} divides by 1.2e-7',
        'contract 2: nothing to average over gives exactly 0',
        'tests/test_differences.py',
    )


def no_shortcut(host: str) -> Difference:
    """The difference from mmdet's shortcut for a batch without targets or without a positive weight."""
    return Difference(
        host,
        "no weight above 0, or an empty batch: the usual formula, element-wise with reduction='none'; mmdet "
        'returns one scalar, the sum of pred * weight or 0',
        'the shape of the result and the meaning of a negative weight must not depend on values',
        'tests/openmmlab/test_shared_rules.py',
    )


def gradient_at_certainty(host: str) -> Difference:
    """The difference from torch's bound on the derivative of a logarithm."""
    return Difference(
        host,
        'gradient of activated predictions within 1e-12 of 0 or 1: the derivative itself; mmdet (torch) limits it',
        'the derivative is what float64 arithmetic gives; at exactly 0 it is 0',
        'tests/openmmlab/test_mmdet.py',
    )


MMDET_CALLS = tuple(
    Call(
        name,
        (
            Input('pred', Role.LOGITS, shape, differentiable=True),
            Input('target', Role.LOGITS, shape),
            Input('weight', Role.WEIGHTS, shape, optional=True, broadcasts=tuple(shape.split()[1:3])),
            AVG_FACTOR,
        ),
    )
    for name, shape in (('vectors', 'N D'), ('images', 'N C H W'))
)
"""The calls of mmdet's element-wise losses: predictions, targets and weights of one shape."""

UNCERTAIN_CALLS = tuple(
    Call(
        name,
        (
            Input('pred', Role.LOGITS, shape, differentiable=True),
            Input('target', Role.LOGITS, shape),
            Input('sigma', Role.LOGITS, shape, differentiable=True, limit=20.0),
            Input('weight', Role.WEIGHTS, shape, optional=True, broadcasts=tuple(shape.split()[1:3])),
            AVG_FACTOR,
        ),
    )
    for name, shape in (('depths', 'N'), ('vectors', 'N D'))
)
"""The calls of mmdet3d's losses with an uncertainty per prediction: of depths, and of vectors."""


def box_calls(
    role: Role, size: int, consistent: Callable[[Any, Mapping[str, Tensor]], Mapping[str, Tensor]] = lambda *_: {}
) -> tuple[Call, ...]:
    """The calls of a loss per pair of boxes of ``size`` numbers: with weights per box and per number."""
    return tuple(
        Call(
            name,
            (
                Input('pred', role, f'N {size}', differentiable=True),
                Input('target', role, f'N {size}'),
                Input('weight', Role.WEIGHTS, weight_shape, optional=optional),
                AVG_FACTOR,
            ),
            consistent=consistent,
        )
        for name, weight_shape, optional in (('boxes', 'N', True), ('coordinate_weights', f'N {size}', False))
    )


BOX_CALLS = box_calls(Role.BOXES, 4)
"""The calls of every loss per pair of boxes."""

ROTATED_CALLS = box_calls(Role.ROTATED_BOXES, 5)
"""The same for rotated boxes."""


def scalar_without_weight(host: str) -> Difference:
    """The difference from mmdet's shortcut for weights of 0."""
    return Difference(
        host,
        f"all weights 0 with reduction='none' gives (N) zeros; {host.partition('.')[0]} gives one scalar 0",
        'the shape of the result must not depend on values, or no graph could compute it',
        'tests/test_differences.py',
    )


CROSSING_EDGES = Tolerance(
    rtol=1e-4,
    atol=1e-5,
    why='a gradient holds lengths between crossings, whose error is divided by the sine of their angle; -log IoU '
    'divides them by the IoU',
)
"""The tolerance of losses of polygon intersection areas."""


def coinciding_edges(host: str, test: str) -> tuple[Difference, ...]:
    """The differences from mmcv's intersection areas of rotated boxes, computed from sorted vertices."""
    return (
        Difference(
            host,
            'gradient where corners or edges coincide: the mean of both one-sided gradients; mmcv takes one of them',
            'any number between them is a subgradient, and the mean is 0 at the best box',
            test,
        ),
        Difference(
            host,
            'small boxes: exact; mmcv adds 1e-8 to products of edges and loses most of the area of boxes of size 1e-4',
            'boxes of normalised coordinates are small',
            test,
        ),
        Difference(
            host,
            'two boxes without area have no overlap; mmcv gives NaN',
            'degenerate boxes are finite',
            test,
        ),
    )


def quadrilaterals(numbers: Tensor) -> Tensor:
    """Turns rows of eight numbers into the corners of convex quadrilaterals around 0."""
    x, y, one, other, turn, cross, _, _ = numbers.unbind(1)
    angle, skew = turn, 0.5 * math.pi + 0.4 * torch.sin(cross)
    corners = []
    for quarter, length in enumerate((1.0 + one.abs(), 1.0 + other.abs(), 1.5 + other.abs(), 1.25 + one.abs())):
        way = angle + math.pi * (quarter // 2) + skew * (quarter % 2)
        corners += [0.5 * x + length * torch.cos(way), 0.5 * y + length * torch.sin(way)]
    return torch.stack(corners, 1)


def convex_calls(weight: Role) -> tuple[Call, ...]:
    """The call of mmrotate's losses of nine points and a quadrilateral, with weights of the given role."""
    return (
        Call(
            'points',
            (
                Input('pred', Role.FEATURES, 'N 18', differentiable=True),
                Input('target', Role.FEATURES, 'N 8'),
                Input('weight', weight, 'N', optional=True),
                AVG_FACTOR,
            ),
            consistent=lambda _, drawn: {'target': quadrilaterals(drawn['target'])},
        ),
    )


def convex_differences(host: str) -> tuple[Difference, ...]:
    """The differences from mmrotate's losses of convex hulls, which define their own gradient."""
    test = 'tests/openmmlab/test_mmrotate.py'
    return (
        Difference(
            host,
            'gradient: the derivative of the returned loss; mmrotate gives that of the mean of 1 - GIoU, or 1e-6 '
            'if any entry of it is above 1',
            'an objective that multiplies or sums the loss needs its derivative',
            test,
        ),
        Difference(
            host,
            'avg_factor counts; mmrotate ignores it',
            'it is documented, and the other losses of a detector are averaged by it',
            test,
        ),
        Difference(
            host,
            'without any area the loss is 1; mmcv gives NaN',
            'degenerate boxes are finite',
            test,
        ),
    )
