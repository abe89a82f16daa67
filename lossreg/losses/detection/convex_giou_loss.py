"""GIoU loss of the convex hulls of points."""

from typing import ClassVar, Optional, Tuple

import torch
from torch import Tensor, nn

from lossreg.arith import check_dim, check_leading_shape, check_size, keep, upcast
from lossreg.ops.reductions import reduce_loss
from lossreg.ops.rotated import area_of_edges, common_area_of_polygons, next_on_hull, quotient_of_areas, rolled
from lossreg.options import check_reduction
from lossreg.registry import LOSSES
from lossreg.spec import HostClass, LossSpec, Role
from lossreg.spec_parts.detectors import convex_calls, convex_differences, scalar_without_weight


def convex_giou_loss(pred: Tensor, target: Tensor, weight: Optional[Tensor] = None) -> Tensor:
    r"""1 - GIoU of convex hulls of nine points and quadrilaterals, in aligned pairs, weighted.

    .. math::
        \ell = w - w \left(\frac{I}{U} - \frac{C - U}{C}\right)

    I is the area common to the hull of the points and the quadrilateral, U the area of their union, C that of the
    convex hull of both. A quotient of nothing is 0.

    Args:
        pred: nine points each, (N, 18): x, y of one after the other.
        target: the corners of quadrilaterals, in order, (N, 8).
        weight: w, (N). Where it is 0, NaN does not count.

    Returns:
        (N).

    Raises:
        ValueError: shapes do not match.
    """
    pred, target, weight = counted_points(pred, target, weight)
    loss = 1.0 - convex_giou(pred, target)
    return loss if weight is None else loss * weight


def counted_points(pred: Tensor, target: Tensor, weight: Optional[Tensor]) -> Tuple[Tensor, Tensor, Optional[Tensor]]:
    """Points and quadrilaterals in full precision, 0 where the weight is 0, and the weight, (N).

    Raises:
        ValueError: shapes do not match.
    """
    check_dim(pred, 2, 'pred')
    check_dim(target, 2, 'target')
    check_size(pred, 1, 18, 'pred', 'coordinates of nine points')
    check_size(target, 1, 8, 'target', 'coordinates of four corners')
    check_leading_shape(target, pred, 1, 'target', 'pred')
    pred, target = upcast(pred), upcast(target)
    if weight is None:
        return pred, target, None
    check_dim(weight, 1, 'weight')
    check_leading_shape(weight, pred, 1, 'weight', 'pred')
    weight = upcast(weight)
    counted = (weight != 0).unsqueeze(1)
    return keep(pred, counted), keep(target, counted), weight


def points_in_rows(points: Tensor) -> Tuple[Tensor, Tensor]:
    """x and y of points (N, 2 P), each (P, N)."""
    xy = points.reshape([-1, points.size(1) // 2, 2])
    x, y = xy.permute(2, 1, 0).contiguous().unbind(0)
    return x, y


def convex_giou(pred: Tensor, target: Tensor) -> Tensor:
    """I / U - (C - U) / C of points (N, 18) and quadrilaterals (N, 8), as :func:`convex_giou_loss` has it."""
    px, py = points_in_rows(pred)
    tx, ty = points_in_rows(target)
    # near 0, for the areas' sake
    x, y = tx.detach().mean(0), ty.detach().mean(0)
    px, py, tx, ty = px - x, py - y, tx - x, ty - y
    to_x, to_y = next_on_hull(px, py)
    quadrilateral = area_of_edges(tx, ty, rolled(tx), rolled(ty))
    common = common_area_of_polygons(px, py, to_x, to_y, tx, ty) * torch.sign(quadrilateral.detach())
    union = area_of_edges(px, py, to_x, to_y) + quadrilateral.abs() - common
    all_x, all_y = torch.cat([px, tx]), torch.cat([py, ty])
    to_x, to_y = next_on_hull(all_x, all_y)
    hull = area_of_edges(all_x, all_y, to_x, to_y)
    return quotient_of_areas(common, union) - quotient_of_areas(hull - union, hull)


@LOSSES.register_module()
class ConvexGIoULoss(nn.Module):
    """Oriented detection by point sets: GIoU of their convex hull and a quadrilateral.

    It has mmrotate's call and numbers; see :func:`convex_giou_loss` for the formula.

    It runs on every device; mmrotate's needs compiled CUDA code.

    Args:
        reduction: ``none``, ``mean`` (over point sets, or by ``avg_factor``) or ``sum``.
        loss_weight: factor of the result.

    Shapes:
        Points (N, 18), quadrilaterals (N, 8), weights (N). Returns a scalar, or (N) with reduction ``none``. An empty
        batch, all weights 0 or ``avg_factor=0`` give 0. Points in one place and quadrilaterals without area are finite.

    Raises:
        ValueError: unknown ``reduction``, shapes do not match, ``avg_factor`` with ``reduction='sum'``.

    Reference:
        Guo et al., Beyond Bounding-Box: Convex-hull Feature Adaptation for Oriented and Densely Packed Object
        Detection, CVPR 2021.
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
        loss = convex_giou_loss(pred, target, weight)
        return self.loss_weight * reduce_loss(loss, reduction, avg_factor)


ConvexGIoULoss.spec = LossSpec(
    functions=(convex_giou_loss,),
    calls=convex_calls(Role.WEIGHTS),
    variants={
        'default': {},
        'initial': {'loss_weight': 0.375},
        'sum': {'reduction': 'sum'},
        'none': {'reduction': 'none'},
    },
    references=('https://openaccess.thecvf.com/content/CVPR2021/html/Guo_Beyond_Bounding-Box_CVPR_2021_paper.html',),
    stands_in_for=(HostClass('mmrotate.ConvexGIoULoss'),),
    differences=(
        *convex_differences('mmrotate.ConvexGIoULoss'),
        scalar_without_weight('mmrotate.ConvexGIoULoss'),
    ),
)
