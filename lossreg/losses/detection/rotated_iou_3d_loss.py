"""IoU loss of 3-D boxes that are rotated about the vertical axis."""

from typing import ClassVar, Optional

import torch
from torch import Tensor, nn

from lossreg.ops.boxes import counted_boxes
from lossreg.ops.reductions import reduce_loss
from lossreg.ops.rotated import common_area_of_boxes, quotient_of_areas
from lossreg.options import check_reduction
from lossreg.registry import LOSSES
from lossreg.spec import HostClass, LossSpec, Role
from lossreg.spec_parts.detectors import (
    CROSSING_EDGES,
    box_calls,
    coinciding_edges,
    scalar_without_weight,
    zero_avg_factor,
)


def rotated_iou_3d_loss(pred: Tensor, target: Tensor, weight: Optional[Tensor] = None) -> Tensor:
    r"""1 - IoU of aligned pairs of upright 3-D boxes, weighted.

    .. math::
        \ell = w \left(1 - \frac{I}{V_p + V_t - I}\right)

    I is the volume of the intersection: the overlap of the rotated rectangles times the overlap of the heights.
    :math:`V_p` and :math:`V_t` are the volumes of the boxes. If both are 0, so is the IoU.

    Args:
        pred: boxes, (N, 7): the centre x, y, z, the size along x, y and z, and the angle about z in radians.
        target: boxes, (N, 7).
        weight: w, (N), or (N, 7), averaged over the numbers. Where the mean is 0, NaN is ignored.

    Returns:
        (N).

    Raises:
        ValueError: shapes do not match.
    """
    pred, target, weight = counted_boxes(pred, target, weight, 7)
    # float64: the derivative in the angle subtracts large terms where boxes coincide
    px, py, pz, pw, pl, ph, p_angle = pred.double().t().contiguous().unbind(0)
    tx, ty, tz, tw, tl, th, t_angle = target.double().t().contiguous().unbind(0)
    common = common_area_of_boxes(
        torch.stack([px, py, pw, pl, p_angle]),
        torch.stack([tx, ty, tw, tl, t_angle]),
    )
    # the overlap of heights from the offset of the centres, which keeps precision where one box is small
    offset, p_half, t_half = tz - pz, 0.5 * ph, 0.5 * th
    height = torch.minimum(p_half, offset + t_half) - torch.maximum(-p_half, offset - t_half)
    common = common * height.clamp(min=0.0)
    # I / (V_p + V_t - I)
    loss = (1.0 - quotient_of_areas(common, pw * pl * ph + tw * tl * th - common)).to(pred.dtype)
    return loss if weight is None else loss * weight


@LOSSES.register_module()
class RotatedIoU3DLoss(nn.Module):
    """Regression of upright 3-D boxes with a heading: 1 - IoU.

    Drop-in replacement for ``mmdet3d.RotatedIoU3DLoss`` (same call and numbers); see :func:`rotated_iou_3d_loss`.

    It runs on every device; mmdet3d's needs compiled CUDA code.

    Args:
        reduction: ``none``, ``mean`` (over boxes, or by ``avg_factor``) or ``sum``.
        loss_weight: factor of the result.

    Shapes:
        Boxes (N, 7); weights (N), or (N, 7), averaged over the numbers. Returns a scalar, or (N) with reduction
        ``none``. An empty batch, all weights 0 or ``avg_factor=0`` give 0. Degenerate boxes give a finite loss.

    Raises:
        ValueError: unknown ``reduction``, shapes do not match, ``avg_factor`` with ``reduction='sum'``.

    Reference:
        Zhou et al., IoU Loss for 2D/3D Object Detection, 3DV 2019.
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
        loss = rotated_iou_3d_loss(pred, target, weight)
        return self.loss_weight * reduce_loss(loss, reduction, avg_factor)


RotatedIoU3DLoss.spec = LossSpec(
    functions=(rotated_iou_3d_loss,),
    calls=box_calls(Role.ROTATED_BOXES, 7),
    variants={
        'default': {},
        'sum': {'reduction': 'sum', 'loss_weight': 2.0},
        'none': {'reduction': 'none'},
    },
    references=('https://arxiv.org/abs/1908.03851',),
    tolerance=CROSSING_EDGES,
    stands_in_for=(HostClass('mmdet3d.RotatedIoU3DLoss'),),
    differences=(
        zero_avg_factor('mmdet3d.RotatedIoU3DLoss'),
        scalar_without_weight('mmdet3d.RotatedIoU3DLoss'),
        *coinciding_edges('mmdet3d.RotatedIoU3DLoss', 'tests/openmmlab/test_mmdet3d.py'),
    ),
)
