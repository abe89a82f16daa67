"""GIoU loss of convex hulls of points, mixed with distances of centres and corners."""

from typing import ClassVar, Optional

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lossreg.arith import check_dim, check_leading_shape, upcast
from lossreg.ops.reductions import average_over, reduce_loss
from lossreg.ops.rotated import convex_giou, counted_points, points_in_rows, rolled
from lossreg.options import check_reduction
from lossreg.registry import LOSSES
from lossreg.spec import Difference, HostClass, LossSpec, Role
from lossreg.spec_parts.detectors import convex_calls, convex_differences


def bc_convex_giou_loss(pred: Tensor, target: Tensor, weight: Optional[Tensor] = None) -> Tensor:
    r"""GIoU of convex hulls and quadrilaterals mixed with point distances; elongated targets weigh the GIoU more.

    .. math::
        \ell = w \left(1 - (1 - 2 s) \mathrm{GIoU} + s D\right), \qquad
        s = e^{-a / 4}, \qquad
        D = \frac{1}{N} \sum_{n=1}^N \sum_c \mathrm{SmoothL1}(p_{nc} - t_{nc})

    GIoU is that of :func:`~lossreg.losses.detection.convex_giou_loss.convex_giou_loss`, and a is the ratio of the
    quadrilateral's first two edges, the longer over the shorter. D is one number for the whole batch, regardless of the
    weights: c runs over x and y of five landmarks, the mean of the points and the leftmost, topmost, rightmost and
    bottommost point.

    Args:
        pred: nine points each, (N, 18), as x, y, x, y, ...
        target: the corners of quadrilaterals, in order, (N, 8).
        weight: w, (N).

    Returns:
        (N).

    Raises:
        ValueError: shapes do not match.
    """
    if weight is not None:
        check_dim(weight, 1, 'weight')
        check_leading_shape(weight, pred, 1, 'weight', 'pred')
    pred, target, _ = counted_points(pred, target, None)
    px, py = points_in_rows(pred)
    tx, ty = points_in_rows(target)
    distance = F.smooth_l1_loss(_landmarks(px, py), _landmarks(tx, ty), reduction='none')
    # landmarks first: for an empty batch, ONNX Runtime would reduce (10, 0) to (10, 0)
    distance = average_over(distance.sum(0).sum(), pred.size(0))
    share = torch.exp(-0.25 * _aspect(tx, ty))
    loss = 1.0 - (1.0 - 2.0 * share) * convex_giou(pred, target) + share * distance
    return loss if weight is None else loss * upcast(weight)


def _landmarks(x: Tensor, y: Tensor) -> Tensor:
    """x and y of the mean and the leftmost, topmost, rightmost and bottommost of points (P, N), (10, N)."""
    xs, ys = [x.mean(0)], [y.mean(0)]
    # ties go to the first point; the top is where y is smallest
    for index in (x.argmin(0), y.argmin(0), x.argmax(0), y.argmax(0)):
        xs.append(x.gather(0, index.unsqueeze(0))[0])
        ys.append(y.gather(0, index.unsqueeze(0))[0])
    return torch.stack(xs + ys)


def _aspect(x: Tensor, y: Tensor) -> Tensor:
    """The longer of the first two edges over the shorter one, infinite where that is 0."""
    dx, dy = (rolled(x) - x).unbind(0), (rolled(y) - y).unbind(0)
    one, other = torch.sqrt(dx[0] * dx[0] + dy[0] * dy[0]), torch.sqrt(dx[1] * dx[1] + dy[1] * dy[1])
    longer, shorter = torch.maximum(one, other), torch.minimum(one, other)
    nothing = shorter == 0
    return torch.where(nothing, torch.inf, longer / torch.where(nothing, 1.0, shorter))


@LOSSES.register_module()
class BCConvexGIoULoss(nn.Module):
    """Oriented detection with point sets (SASM): GIoU of convex hulls, mixed with distances of centres and corners.

    Drop-in replacement for ``mmrotate.BCConvexGIoULoss`` (same call and numbers); see :func:`bc_convex_giou_loss`.

    It runs on every device; mmrotate's needs compiled CUDA code.

    Args:
        reduction: ``none``, ``mean`` (over point sets, or by ``avg_factor``) or ``sum``.
        loss_weight: factor of the result.

    Shapes:
        Points (N, 18), quadrilaterals (N, 8), weights (N). Returns a scalar, or (N) with reduction ``none``. An empty
        batch or ``avg_factor=0`` gives 0. Coincident points and quadrilaterals without area give a finite loss. The
        distances of the landmarks are averaged over all samples, also those of weight 0, as in mmrotate.

    Raises:
        ValueError: unknown ``reduction``, shapes do not match, ``avg_factor`` with ``reduction='sum'``.

    Reference:
        Hou et al., Shape-Adaptive Selection and Measurement for Oriented Object Detection, AAAI 2022.
    """

    spec: ClassVar[LossSpec]

    def __init__(self, reduction: str = 'mean', loss_weight: float = 1.0) -> None:
        super().__init__()
        check_reduction(reduction)
        self.reduction = reduction
        self.loss_weight = float(loss_weight)

    def forward(
        self,
        pred: Tensor,
        target: Tensor,
        weight: Optional[Tensor] = None,
        avg_factor: Optional[float] = None,
        reduction_override: Optional[str] = None,
    ) -> Tensor:
        """Computes the loss; ``reduction_override`` replaces the constructor's reduction for this call."""
        reduction = self.reduction if reduction_override is None else reduction_override
        loss = bc_convex_giou_loss(pred, target, weight)
        return self.loss_weight * reduce_loss(loss, reduction, avg_factor)


BCConvexGIoULoss.spec = LossSpec(
    functions=(bc_convex_giou_loss,),
    # not Role.WEIGHTS, whose 0 switches off a sample: here its landmarks still count
    calls=convex_calls(Role.POSITIVE),
    variants={
        'default': {},
        'initial': {'loss_weight': 0.375},
        'sum': {'reduction': 'sum'},
        'none': {'reduction': 'none'},
    },
    references=('https://ojs.aaai.org/index.php/AAAI/article/view/19975',),
    stands_in_for=(HostClass('mmrotate.BCConvexGIoULoss'),),
    differences=(
        *convex_differences('mmrotate.BCConvexGIoULoss'),
        Difference(
            'mmrotate.BCConvexGIoULoss',
            "reduction='none' gives (N); mmrotate gives (1, N)",
            'the shape that all other box losses return',
            'tests/openmmlab/test_mmrotate.py',
        ),
    ),
)
