"""Generalised IoU loss of axis-aligned boxes."""

from typing import ClassVar, Optional

from torch import Tensor, nn

from lossreg.ops.boxes import (
    area,
    check_box_format,
    corners,
    counted_boxes,
    hull_size,
    inner_size,
    intersection_and_union,
)
from lossreg.ops.reductions import reduce_loss
from lossreg.options import check_reduction
from lossreg.registry import LOSSES
from lossreg.spec import HostClass, LossSpec
from lossreg.spec_parts.detectors import BOX_CALLS, scalar_without_weight, zero_avg_factor


def giou_loss(
    pred: Tensor,
    target: Tensor,
    weight: Optional[Tensor] = None,
    eps: float = 1e-6,
    box_format: str = 'xyxy',
) -> Tensor:
    r"""1 - GIoU of aligned pairs of boxes, weighted.

    .. math::
        \ell = w - w \left(\frac{I}{U} - \frac{E - U}{E}\right)

    I is the area of the intersection, U that of the union, E that of the smallest enclosing box; U and E are clamped to
    at least ``eps``. A box with x2 < x1 has a negative width, as in mmdet.

    Args:
        pred: boxes, (N, 4).
        target: boxes, (N, 4).
        weight: w, (N), or (N, 4), averaged over the coordinates. Where the mean is 0, NaN is ignored.
        eps: lower bound of the denominators.
        box_format: what the four numbers are: ``xyxy`` (two corners), ``xywh`` (the first corner and the size) or
            ``cxcywh`` (the centre and the size).

    Returns:
        (N).

    Raises:
        ValueError: shapes do not match, unknown ``box_format``.

    Example:
        >>> boxes = torch.tensor([[0.0, 0.0, 2.0, 2.0]])
        >>> giou_loss(boxes, boxes + 1)  # 1 - 1/7 + 2/9
        tensor([1.0794])
    """
    pred, target, weight = counted_boxes(pred, target, weight)
    p1, p2 = corners(pred, box_format)
    t1, t2 = corners(target, box_format)
    p_size, t_size, inner = p2 - p1, t2 - t1, inner_size(p1, p2, t1, t2)
    intersection, union = intersection_and_union(p_size, t_size, inner)
    union = union.clamp(min=eps)
    hull = area(hull_size(p_size, t_size, inner)).clamp(min=eps)
    # (E - U) / E as 1 - U / E: the two terms of its derivative in E would cancel where U is small
    loss = (1.0 - intersection / union) + (1.0 - union / hull)
    return loss if weight is None else loss * weight


@LOSSES.register_module()
class GIoULoss(nn.Module):
    """Box regression: IoU that has a gradient even where boxes do not overlap.

    Drop-in replacement for ``mmdet.GIoULoss`` (same call and numbers); see :func:`giou_loss` for the formula.

    Args:
        eps: lower bound of the areas of the union and the enclosing box.
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
        Rezatofighi et al., Generalized Intersection over Union, CVPR 2019.
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
        loss = giou_loss(pred, target, weight, self.eps, self.box_format)
        return self.loss_weight * reduce_loss(loss, reduction, avg_factor)


GIoULoss.spec = LossSpec(
    functions=(giou_loss,),
    calls=BOX_CALLS,
    variants={
        'default': {},
        'weighted': {'loss_weight': 2.0, 'eps': 1e-7},
        'sum': {'reduction': 'sum'},
        'none': {'reduction': 'none'},
        'xywh': {'box_format': 'xywh'},
        'cxcywh': {'box_format': 'cxcywh'},
    },
    references=('https://arxiv.org/abs/1902.09630',),
    stands_in_for=(HostClass('mmdet.GIoULoss'),),
    differences=(scalar_without_weight('mmdet.GIoULoss'), zero_avg_factor('mmdet.GIoULoss')),
)
