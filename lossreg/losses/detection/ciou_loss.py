"""Complete-IoU loss of axis-aligned boxes."""

from typing import ClassVar, Optional

from torch import Tensor, nn

from lossreg.ops.boxes import (
    aspect_difference,
    aspect_trade_off,
    centre_offset,
    check_box_format,
    corners,
    counted_boxes,
    hull_size,
    inner_size,
    intersection_and_union,
    squared_length,
)
from lossreg.ops.reductions import reduce_loss
from lossreg.options import check_reduction
from lossreg.registry import LOSSES
from lossreg.spec import HostClass, LossSpec
from lossreg.spec_parts.detectors import BOX_CALLS, scalar_without_weight, zero_avg_factor


def ciou_loss(
    pred: Tensor,
    target: Tensor,
    weight: Optional[Tensor] = None,
    eps: float = 1e-6,
    box_format: str = 'xyxy',
) -> Tensor:
    r"""1 - CIoU of aligned pairs of boxes, weighted.

    .. math::
        \ell = w \left(1 - \mathrm{IoU} + \frac{\rho^2}{c^2 + \epsilon} + \alpha v\right), \qquad
        v = \frac{4}{\pi^2} \left(\arctan\frac{w_t}{h_t + \epsilon} - \arctan\frac{w_p}{h_p + \epsilon}\right)^2

    IoU is I / (U + :math:`\epsilon`), with the areas of intersection and union; :math:`\rho` is the distance between
    the centres, c the diagonal of the smallest enclosing box. :math:`\alpha` is v / (1 - IoU + v) where IoU > 1/2, else
    0, and has no gradient. CIoU is clamped to [-1, 1].

    Args:
        pred: boxes, (N, 4).
        target: boxes, (N, 4).
        weight: w, (N), or (N, 4), averaged over the coordinates. Where the mean is 0, NaN is ignored.
        eps: added to the denominators.
        box_format: what the four numbers are: ``xyxy`` (two corners), ``xywh`` (the first corner and the size) or
            ``cxcywh`` (the centre and the size).

    Returns:
        (N).

    Raises:
        ValueError: shapes do not match, unknown ``box_format``.
    """
    pred, target, weight = counted_boxes(pred, target, weight)
    p1, p2 = corners(pred, box_format)
    t1, t2 = corners(target, box_format)
    p_size, t_size, inner = p2 - p1, t2 - t1, inner_size(p1, p2, t1, t2)
    intersection, union = intersection_and_union(p_size, t_size, inner)
    iou = intersection / (union + eps)
    # rho^2 / c^2
    distance = squared_length(centre_offset(p1, p2, t1, t2)) / (squared_length(hull_size(p_size, t_size, inner)) + eps)
    v = aspect_difference(p_size, t_size, eps)
    ciou = iou - (distance + aspect_trade_off(iou, v) * v)
    loss = 1.0 - ciou.clamp(min=-1.0, max=1.0)
    return loss if weight is None else loss * weight


@LOSSES.register_module()
class CIoULoss(nn.Module):
    """Box regression: IoU, centre distance and aspect ratio difference.

    Drop-in replacement for ``mmdet.CIoULoss`` (same call and numbers); see :func:`ciou_loss` for the formula.

    Args:
        eps: added to the denominators.
        reduction: ``none``, ``mean`` (over boxes, or by ``avg_factor``) or ``sum``.
        loss_weight: factor of the result.
        box_format: ``xyxy`` (two corners), ``xywh`` (the first corner and the size) or ``cxcywh`` (the centre and the
            size).

    Shapes:
        Boxes (N, 4); weights (N), or (N, 4), averaged over the coordinates. Returns a scalar, or (N) with reduction
        ``none``. An empty batch, all weights 0 or ``avg_factor=0`` give 0. Degenerate boxes give a finite loss.

    Raises:
        ValueError: unknown ``reduction`` or ``box_format``, shapes do not match,
            ``avg_factor`` with ``reduction='sum'``.

    Reference:
        Zheng et al., Enhancing Geometric Factors in Model Learning and Inference for Object Detection and Instance
        Segmentation, IEEE Transactions on Cybernetics 2022.
    """

    spec: ClassVar[LossSpec]

    def __init__(
        self,
        eps: float = 1e-6,
        reduction: str = 'mean',
        loss_weight: float = 1.0,
        box_format: str = 'xyxy',
    ) -> None:
        super().__init__()
        check_reduction(reduction)
        check_box_format(box_format)
        self.eps = float(eps)
        self.reduction = reduction
        self.loss_weight = float(loss_weight)
        self.box_format = box_format

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
        loss = ciou_loss(pred, target, weight, self.eps, self.box_format)
        return self.loss_weight * reduce_loss(loss, reduction, avg_factor)


CIoULoss.spec = LossSpec(
    functions=(ciou_loss,),
    calls=BOX_CALLS,
    variants={
        'default': {},
        'weighted': {'loss_weight': 12.0, 'eps': 1e-07},
        'sum': {'reduction': 'sum'},
        'none': {'reduction': 'none'},
        'xywh': {'box_format': 'xywh'},
        'cxcywh': {'box_format': 'cxcywh'},
    },
    references=('https://arxiv.org/abs/2005.03572',),
    stands_in_for=(HostClass('mmdet.CIoULoss'),),
    differences=(
        scalar_without_weight('mmdet.CIoULoss'),
        zero_avg_factor('mmdet.CIoULoss'),
    ),
)
