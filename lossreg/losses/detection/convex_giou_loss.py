"""GIoU loss of convex hulls of points."""

from typing import ClassVar, Optional

from torch import Tensor, nn

from lossreg.ops.reductions import reduce_loss
from lossreg.ops.rotated import convex_giou, counted_points
from lossreg.options import check_reduction
from lossreg.registry import LOSSES
from lossreg.spec import HostClass, LossSpec, Role
from lossreg.spec_parts.detectors import convex_calls, convex_differences, scalar_without_weight


def convex_giou_loss(pred: Tensor, target: Tensor, weight: Optional[Tensor] = None) -> Tensor:
    r"""1 - GIoU of aligned pairs of a convex hull of nine points and a quadrilateral, weighted.

    .. math::
        \ell = w - w \left(\frac{I}{U} - \frac{C - U}{C}\right)

    I is the area of the intersection of the points' hull and the quadrilateral, U that of their union, C that of the
    convex hull of both. 0 / 0 is 0.

    Args:
        pred: nine points each, (N, 18), as x, y, x, y, ...
        target: the corners of quadrilaterals, in order, (N, 8).
        weight: w, (N). Where it is 0, NaN is ignored.

    Returns:
        (N).

    Raises:
        ValueError: shapes do not match.
    """
    pred, target, weight = counted_points(pred, target, weight)
    loss = 1.0 - convex_giou(pred, target)
    return loss if weight is None else loss * weight


@LOSSES.register_module()
class ConvexGIoULoss(nn.Module):
    """Oriented detection with point sets: GIoU of their convex hull and a quadrilateral.

    Drop-in replacement for ``mmrotate.ConvexGIoULoss`` (same call and numbers); see :func:`convex_giou_loss` for the
    formula.

    It runs on every device; mmrotate's needs compiled CUDA code.

    Args:
        reduction: ``none``, ``mean`` (over point sets, or by ``avg_factor``) or ``sum``.
        loss_weight: factor of the result.

    Shapes:
        Points (N, 18), quadrilaterals (N, 8), weights (N). Returns a scalar, or (N) with reduction ``none``. An empty
        batch, all weights 0 or ``avg_factor=0`` give 0. Coincident points and quadrilaterals without area give a finite
        loss.

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
