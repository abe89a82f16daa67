"""IoU loss of axis-aligned boxes."""

import warnings
from typing import ClassVar, Optional

import torch
from torch import Tensor, nn

from lossreg.ops.boxes import (
    check_box_format,
    check_iou_mode,
    corners,
    counted_boxes,
    inner_size,
    intersection_and_union,
)
from lossreg.ops.reductions import reduce_loss
from lossreg.options import check_reduction
from lossreg.registry import LOSSES
from lossreg.spec import HostClass, LossSpec
from lossreg.spec_parts.detectors import BOX_CALLS, zero_avg_factor


def iou_loss(
    pred: Tensor,
    target: Tensor,
    weight: Optional[Tensor] = None,
    eps: float = 1e-6,
    mode: str = 'log',
    box_format: str = 'xyxy',
) -> Tensor:
    r"""Loss of the IoU of aligned pairs of boxes, weighted.

    .. math::
        \ell = -w \log \mathrm{IoU}, \qquad w\,(1 - \mathrm{IoU}) \qquad\text{or}\qquad w\,(1 - \mathrm{IoU}^2), \qquad
        \mathrm{IoU} = \max(I / U, \epsilon)

    I is the area of the intersection, U that of the union, at least 1e-6 whatever ``eps`` is, as in mmdet.

    Args:
        pred: boxes, (N, 4).
        target: boxes, (N, 4).
        weight: w, (N), or (N, 4), averaged over the coordinates. Where the mean is 0, NaN is ignored.
        eps: lower bound of the IoU.
        mode: which of the three: ``log``, ``linear`` or ``square``.
        box_format: what the four numbers are: ``xyxy`` (two corners), ``xywh`` (the first corner and the size) or
            ``cxcywh`` (the centre and the size).

    Returns:
        (N).

    Raises:
        ValueError: shapes do not match, unknown ``box_format`` or ``mode``.

    Example:
        >>> boxes = torch.tensor([[0.0, 0.0, 2.0, 2.0]])
        >>> iou_loss(boxes, boxes + 1, mode='linear')  # 1 - 1/7
        tensor([0.8571])
    """
    check_iou_mode(mode)
    pred, target, weight = counted_boxes(pred, target, weight)
    p1, p2 = corners(pred, box_format)
    t1, t2 = corners(target, box_format)
    p_size, t_size, inner = p2 - p1, t2 - t1, inner_size(p1, p2, t1, t2)
    intersection, union = intersection_and_union(p_size, t_size, inner)
    # IoU = max(I / U, eps)
    iou = (intersection / union.clamp(min=1e-6)).clamp(min=eps)
    if mode == 'linear':
        loss = 1.0 - iou
    elif mode == 'square':
        loss = 1.0 - iou * iou
    else:
        loss = -torch.log(iou)
    return loss if weight is None else loss * weight


@LOSSES.register_module()
class IoULoss(nn.Module):
    """Box regression: the IoU, linear, squared or as a logarithm.

    Drop-in replacement for ``mmdet.IoULoss`` (same call and numbers); see :func:`iou_loss` for the formula.

    Args:
        linear: deprecated; means ``mode='linear'``.
        eps: lower bound of the IoU.
        reduction: ``none``, ``mean`` (over boxes, or by ``avg_factor``) or ``sum``.
        loss_weight: factor of the result.
        mode: ``log``, ``linear`` or ``square``.
        box_format: ``xyxy`` (two corners), ``xywh`` (the first corner and the size) or ``cxcywh`` (the centre and the
            size).

    Shapes:
        Boxes (N, 4); weights (N), or (N, 4), averaged over the coordinates. Returns a scalar, or (N) with reduction
        ``none``. An empty batch, all weights 0 or ``avg_factor=0`` give 0. Degenerate boxes give a finite loss.

    Raises:
        ValueError: unknown ``reduction`` or ``box_format`` or ``mode``, shapes do not match,
            ``avg_factor`` with ``reduction='sum'``.

    Reference:
        Yu et al., UnitBox, ACM Multimedia 2016.
    """

    spec: ClassVar[LossSpec]

    def __init__(
        self,
        linear: bool = False,
        eps: float = 1e-6,
        reduction: str = 'mean',
        loss_weight: float = 1.0,
        mode: str = 'log',
        box_format: str = 'xyxy',
    ) -> None:
        super().__init__()
        check_reduction(reduction)
        check_box_format(box_format)
        check_iou_mode(mode)
        if linear:
            warnings.warn("linear is deprecated, write mode='linear'", DeprecationWarning, stacklevel=2)
        self.mode = 'linear' if linear else mode
        self.linear = linear
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
        loss = iou_loss(pred, target, weight, self.eps, self.mode, self.box_format)
        return self.loss_weight * reduce_loss(loss, reduction, avg_factor)


IoULoss.spec = LossSpec(
    functions=(iou_loss,),
    calls=BOX_CALLS,
    variants={
        'default': {},
        'yolox': {'mode': 'square', 'eps': 1e-16, 'reduction': 'sum', 'loss_weight': 5.0},
        'linear_mode': {'mode': 'linear', 'loss_weight': 10.0},
        'deprecated_linear': {'linear': True, 'loss_weight': 7.0},
        'none': {'reduction': 'none', 'eps': 1e-06, 'loss_weight': 1.0},
        'xywh': {'box_format': 'xywh'},
        'cxcywh': {'box_format': 'cxcywh'},
    },
    references=('https://arxiv.org/abs/1608.01471',),
    stands_in_for=(HostClass('mmdet.IoULoss'),),
    differences=(zero_avg_factor('mmdet.IoULoss'),),
)
