"""Penalty for points outside their quadrilateral."""

from dataclasses import replace
from typing import ClassVar, Optional

import torch
from torch import Tensor, nn

from lossreg.arith import check_dim, check_leading_shape, check_size, choose, upcast
from lossreg.ops.reductions import average, average_by, total
from lossreg.ops.rotated import points_in_rows, rolled
from lossreg.registry import LOSSES
from lossreg.spec import Call, Difference, HostClass, Input, LossSpec, Role, always
from lossreg.spec_parts.detectors import AVG_FACTOR, quadrilaterals


def spatial_border_loss(pts: Tensor, gt_bboxes: Tensor) -> Tensor:
    r"""A fifth of the mean distance from the quadrilateral's centre, over the points outside.

    .. math::
        \ell = \frac{0.2}{|O|} \sum_{(n, k) \in O} \lVert p_{nk} - c_n \rVert, \qquad
        O = \{(n, k): p_{nk} \text{ is not inside } t_n\}

    A point is inside if the triangles it forms with the edges all have the same sign and an area of at least 0.005. The
    centre :math:`c_n` is the midpoint of the first and third corner. The test for being outside has no gradient.

    Args:
        pts: points p, (N, 2 K), as x, y, x, y, ...
        gt_bboxes: the corners of quadrilaterals t, in order, (N, 8).

    Returns:
        A scalar; 0 if no point is outside.

    Raises:
        ValueError: shapes do not match.
    """
    check_dim(pts, 2, 'pts')
    check_dim(gt_bboxes, 2, 'gt_bboxes')
    check_size(gt_bboxes, 1, 8, 'gt_bboxes', 'coordinates of four corners')
    check_leading_shape(gt_bboxes, pts, 1, 'gt_bboxes', 'pts')
    x, y = points_in_rows(upcast(pts))
    corner_x, corner_y = points_in_rows(upcast(gt_bboxes))
    from_x, from_y = corner_x.unsqueeze(1) - x.unsqueeze(0), corner_y.unsqueeze(1) - y.unsqueeze(0)
    # twice the areas of the triangles, (4, K, N)
    twice = from_x * rolled(from_y) - from_y * rolled(from_x)
    inside = (twice >= 0.01).all(0) | (twice <= -0.01).all(0)
    x0, _, x2, _ = corner_x.unbind(0)
    y0, _, y2, _ = corner_y.unbind(0)
    dx, dy = x - 0.5 * (x0 + x2), y - 0.5 * (y0 + y2)
    square = dx * dx + dy * dy
    # the distance has no derivative at the centre
    still = square == 0
    distance = torch.sqrt(torch.where(still, 1.0, square)) * torch.where(still, 0.0, 1.0)
    outside = total(choose(inside, 0.0, 1.0, distance).t())
    return average(0.2 * total(torch.where(inside, 0.0, distance).t()), outside)


@LOSSES.register_module()
class SpatialBorderLoss(nn.Module):
    """Oriented detection with point sets: pulls points that left their box back into it.

    Drop-in replacement for ``mmrotate.SpatialBorderLoss`` (same call and numbers); see :func:`spatial_border_loss`.

    Args:
        loss_weight: factor of the result.

    Shapes:
        Points (N, 18), quadrilaterals (N, 8), weights (N). Returns (1). The mean over the points outside is divided by
        ``avg_factor``, or by the number of weights above 0, plus 1e-6. Weights have no other effect, as in mmrotate,
        whose heads pass only the point sets that count. An empty batch, no such weight or ``avg_factor=0`` give 0.

    Raises:
        ValueError: shapes do not match.

    Reference:
        Li et al., Oriented RepPoints for Aerial Object Detection, CVPR 2022.
    """

    spec: ClassVar[LossSpec]

    def __init__(self, loss_weight: float = 1.0) -> None:
        super().__init__()
        self.loss_weight = float(loss_weight)

    def forward(self, pts: Tensor, gt_bboxes: Tensor, weight: Tensor, avg_factor: Optional[float] = None) -> Tensor:
        """Computes the loss of points, their quadrilaterals and weights."""
        check_size(pts, 1, 18, 'pts', 'coordinates of nine points')
        check_dim(weight, 1, 'weight')
        check_leading_shape(weight, pts, 1, 'weight', 'pts')
        # concatenated and sliced so that .pt2, which drops the check above, rejects a different number of weights too
        pts = torch.cat((upcast(pts), upcast(weight).unsqueeze(1)), 1)[:, :18]
        loss = spatial_border_loss(pts, gt_bboxes)
        if avg_factor is None:
            weight = upcast(weight)
            # a NaN weight makes the count NaN
            count = total(torch.where(torch.isnan(weight), weight, choose(weight > 0, 1.0, 0.0, weight)))
            loss = average_by(loss, count, 1e-6)
        else:
            loss = average(loss, torch.zeros_like(loss) + avg_factor)
        return self.loss_weight * loss.view(1)


SpatialBorderLoss.spec = LossSpec(
    functions=(spatial_border_loss,),
    calls=(
        Call(
            'points',
            (
                Input('pts', Role.FEATURES, 'N 18', differentiable=True),
                Input('gt_bboxes', Role.FEATURES, 'N 8'),
                # not Role.WEIGHTS, whose 0 switches off a sample
                Input('weight', Role.POSITIVE, 'N'),
                replace(AVG_FACTOR, when=always),
            ),
            consistent=lambda _, drawn: {'gt_bboxes': quadrilaterals(drawn['gt_bboxes'])},
        ),
    ),
    variants={
        'default': {},
        'initial': {'loss_weight': 0.05},
        'refined': {'loss_weight': 0.1},
    },
    references=('https://arxiv.org/abs/2105.11111',),
    stands_in_for=(HostClass('mmrotate.SpatialBorderLoss'),),
    differences=(
        Difference(
            'mmrotate.SpatialBorderLoss',
            'a factor of 0 gives 0, and so does no weight above 0; mmrotate divides by 0, or by 1e-6',
            'contract 2: nothing to average over gives exactly 0',
            'tests/openmmlab/test_mmrotate.py',
        ),
        Difference(
            'mmrotate.SpatialBorderLoss',
            'the gradient of a point at the centre of a quadrilateral without area is 0; mmrotate gives NaN',
            'degenerate boxes are finite',
            'tests/openmmlab/test_mmrotate.py',
        ),
        Difference(
            'mmrotate.SpatialBorderLoss',
            'an empty batch gives (1) with gradient 0; mmrotate gives a constant detached from the graph',
            'contract 2: it stays part of the graph',
            'tests/openmmlab/test_mmrotate.py',
        ),
    ),
)
