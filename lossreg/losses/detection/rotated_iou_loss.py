"""IoU loss of rotated boxes."""

import warnings
from typing import ClassVar, Optional

import torch
from torch import Tensor, nn

from lossreg.ops.boxes import check_iou_mode, counted_boxes
from lossreg.ops.reductions import reduce_loss
from lossreg.ops.rotated import common_area_of_boxes, quotient_of_areas
from lossreg.options import check_reduction
from lossreg.registry import LOSSES
from lossreg.spec import HostClass, LossSpec
from lossreg.spec_parts.detectors import CROSSING_EDGES, ROTATED_CALLS, coinciding_edges, zero_avg_factor


def rotated_iou_loss(
    pred: Tensor, target: Tensor, weight: Optional[Tensor] = None, eps: float = 1e-6, mode: str = 'log'
) -> Tensor:
    r"""-log IoU, 1 - IoU or 1 - IoU^2 of aligned pairs of rotated boxes, weighted.

    .. math::
        \mathrm{IoU} = \max\left(\frac{I}{A_p + A_t - I}, \epsilon\right)

    I is the area of the intersection, :math:`A_p` and :math:`A_t` are the areas of the boxes. If both are 0, the IoU is
    :math:`\epsilon`.

    Args:
        pred: boxes, (N, 5): x, y, w, h and the angle in radians.
        target: boxes, (N, 5).
        weight: w, (N), or (N, 5), averaged over the numbers. Where the mean is 0, NaN is ignored.
        eps: lower bound of the IoU.
        mode: ``log``, ``linear`` or ``square``.

    Returns:
        (N).

    Raises:
        ValueError: shapes do not match, unknown ``mode``.
    """
    check_iou_mode(mode)
    pred, target, weight = counted_boxes(pred, target, weight, 5)
    # float64: the derivative in the angle subtracts large terms where boxes coincide
    p, t = pred.double().t().contiguous(), target.double().t().contiguous()
    common = common_area_of_boxes(p, t)
    _, _, p_width, p_height, _ = p.unbind(0)
    _, _, t_width, t_height, _ = t.unbind(0)
    # I / (A_p + A_t - I)
    iou = quotient_of_areas(common, p_width * p_height + t_width * t_height - common).clamp(min=eps)
    if mode == 'linear':
        loss = 1.0 - iou
    elif mode == 'square':
        loss = 1.0 - iou * iou
    else:
        loss = -torch.log(iou)
    loss = loss.to(pred.dtype)
    return loss if weight is None else loss * weight


@LOSSES.register_module()
class RotatedIoULoss(nn.Module):
    """Regression of rotated boxes: the exact IoU of the two rectangles.

    Drop-in replacement for ``mmrotate.RotatedIoULoss`` (same call and numbers); see :func:`rotated_iou_loss` for the
    formula.

    It runs on every device; mmrotate's needs compiled CUDA code.

    Args:
        linear: deprecated; means ``mode='linear'``.
        eps: lower bound of the IoU.
        reduction: ``none``, ``mean`` (over boxes, or by ``avg_factor``) or ``sum``.
        loss_weight: factor of the result.
        mode: ``log``, ``linear`` or ``square``.

    Shapes:
        Boxes (N, 5); weights (N), or (N, 5), averaged over the numbers. Returns a scalar, or (N) with reduction
        ``none``. An empty batch, all weights 0 or ``avg_factor=0`` give 0. Degenerate boxes give a finite loss.

    Raises:
        ValueError: unknown ``reduction`` or ``mode``, shapes do not match, ``avg_factor`` with ``reduction='sum'``.

    Reference:
        Zhou et al., IoU Loss for 2D/3D Object Detection, 3DV 2019.
    """

    spec: ClassVar[LossSpec]

    def __init__(
        self,
        linear: bool = False,
        eps: float = 1e-6,
        reduction: str = 'mean',
        loss_weight: float = 1.0,
        mode: str = 'log',
    ) -> None:
        super().__init__()
        check_reduction(reduction)
        check_iou_mode(mode)
        if linear:
            warnings.warn("linear is deprecated, write mode='linear'", DeprecationWarning, stacklevel=2)
        self.mode = 'linear' if linear else mode
        self.linear = linear
        self.eps = float(eps)
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
        loss = rotated_iou_loss(pred, target, weight, self.eps, self.mode)
        return self.loss_weight * reduce_loss(loss, reduction, avg_factor)


RotatedIoULoss.spec = LossSpec(
    functions=(rotated_iou_loss,),
    calls=ROTATED_CALLS,
    variants={
        'default': {},
        'linear': {'mode': 'linear', 'loss_weight': 2.0},
        'square': {'mode': 'square', 'reduction': 'sum', 'eps': 1e-4},
        'deprecated_linear': {'linear': True},
        'none': {'reduction': 'none'},
    },
    references=('https://arxiv.org/abs/1908.03851',),
    tolerance=CROSSING_EDGES,
    stands_in_for=(HostClass('mmrotate.RotatedIoULoss'),),
    differences=(
        zero_avg_factor('mmrotate.RotatedIoULoss'),
        *coinciding_edges('mmrotate.RotatedIoULoss', 'tests/openmmlab/test_mmrotate.py'),
    ),
)
