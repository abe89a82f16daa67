"""Alpha-IoU losses of axis-aligned boxes."""

from typing import ClassVar, Optional

import torch
from torch import Tensor, nn

from lossreg.arith import power
from lossreg.ops.boxes import (
    area,
    aspect_difference,
    aspect_trade_off,
    centre_offset,
    check_box_format,
    corners,
    counted_boxes,
    empty_area,
    hull_size,
    inner_size,
    intersection_and_union,
    squared_length,
)
from lossreg.ops.reductions import reduce_loss
from lossreg.options import check_reduction
from lossreg.registry import LOSSES
from lossreg.spec import LossSpec
from lossreg.spec_parts.detectors import BOX_CALLS


def alpha_iou_loss(
    pred: Tensor,
    target: Tensor,
    weight: Optional[Tensor] = None,
    alpha: float = 3.0,
    mode: str = 'iou',
    eps: float = 1e-6,
    box_format: str = 'xyxy',
) -> Tensor:
    r"""1 - IoU^alpha + the penalties^alpha of aligned pairs of boxes, weighted.

    .. math::
        \ell = w \left(1 - \left(\frac{I}{U}\right)^\alpha + \sum_k P_k^\alpha\right), \qquad
        P = \frac{E - U}{E} \text{ (giou)}, \quad \frac{\rho^2}{c^2} \text{ (diou)}, \quad
        \frac{\rho^2}{c^2} \text{ and } \beta v \text{ (ciou)}

    I is the area of the intersection, U that of the union, E that of the smallest enclosing box and c its diagonal,
    :math:`\rho` the distance between the centres; :math:`\beta` (there called alpha, without gradient) and v are those
    of :func:`ciou_loss`. The denominators U, E and :math:`c^2` are clamped to at least ``eps``.

    Args:
        pred: boxes, (N, 4).
        target: boxes, (N, 4).
        weight: w, (N), or (N, 4), averaged over the coordinates. Where the mean is 0, NaN is ignored.
        alpha: the exponent, > 0.
        mode: ``iou`` (no penalty), ``giou``, ``diou`` or ``ciou``.
        eps: lower bound of the denominators.
        box_format: what the four numbers are: ``xyxy`` (two corners), ``xywh`` (the first corner and the size) or
            ``cxcywh`` (the centre and the size).

    Returns:
        (N).

    Raises:
        ValueError: shapes do not match, unknown ``box_format`` or ``mode``, ``alpha`` <= 0.
    """
    check_alpha_iou_mode(mode)
    pred, target, weight = counted_boxes(pred, target, weight)
    p1, p2 = corners(pred, box_format)
    t1, t2 = corners(target, box_format)
    p_size, t_size, inner = p2 - p1, t2 - t1, inner_size(p1, p2, t1, t2)
    intersection, union = intersection_and_union(p_size, t_size, inner)
    iou = intersection / union.clamp(min=eps)
    loss = 1.0 - _power(iou, alpha)
    hull = hull_size(p_size, t_size, inner)
    if mode == 'giou':
        # (E - U) / E: near 0 from E - U without cancellation, because a power < 2 amplifies rounding; near 1 as
        # 1 - U / E, whose gradient subtracts no large numbers
        hull_area = area(hull)
        floored = hull_area.clamp(min=eps)
        # where the second corners lie before the first, E is 0
        empty = torch.where(hull_area > 0, empty_area(p_size, t_size, inner, intersection), -union) / floored
        full = union / floored
        loss = loss + _power(torch.where((full < 0.5) & (hull_area >= eps), 1.0 - full, empty), alpha)
    if mode == 'diou' or mode == 'ciou':
        distance = squared_length(centre_offset(p1, p2, t1, t2)) / squared_length(hull).clamp(min=eps)
        loss = loss + _power(distance, alpha)
    if mode == 'ciou':
        v = aspect_difference(p_size, t_size, eps)
        loss = loss + _power(aspect_trade_off(iou, v) * v, alpha)
    return loss if weight is None else loss * weight


def _power(x: Tensor, exponent: float) -> Tensor:
    """x^exponent; exactly 0, with gradient 0, where x is not positive."""
    return torch.where(x <= 0, 0.0, power(x, exponent))


def check_alpha_iou_mode(mode: str) -> None:
    """Raises ValueError unless ``mode`` is ``iou``, ``giou``, ``diou`` or ``ciou``."""
    if mode != 'iou' and mode != 'giou' and mode != 'diou' and mode != 'ciou':
        raise ValueError(f"mode must be 'iou', 'giou', 'diou' or 'ciou', got '{mode}'")


@LOSSES.register_module()
class AlphaIoULoss(nn.Module):
    """Box regression: powers of the IoU, or of a refined IoU, which give accurate boxes more weight.

    See :func:`alpha_iou_loss` for the formula.

    Args:
        alpha: the exponent, > 0.
        mode: which penalty is added: ``iou`` (none), ``giou``, ``diou`` or ``ciou``.
        eps: lower bound of the denominators.
        reduction: ``none``, ``mean`` (over boxes, or by ``avg_factor``) or ``sum``.
        loss_weight: factor of the result.
        box_format: ``xyxy`` (two corners), ``xywh`` (the first corner and the size) or ``cxcywh`` (the centre and the
            size).

    Shapes:
        Boxes (N, 4); weights (N), or (N, 4), averaged over the coordinates. Returns a scalar, or (N) with reduction
        ``none``. An empty batch, all weights 0 or ``avg_factor=0`` give 0. Degenerate boxes give a finite loss.

    Raises:
        ValueError: unknown ``reduction`` or ``box_format`` or ``mode``, ``alpha`` <= 0, shapes do not match,
            ``avg_factor`` with ``reduction='sum'``.

    Reference:
        He et al., Alpha-IoU: A Family of Power Intersection over Union Losses for Bounding Box Regression,
        NeurIPS 2021.
    """

    spec: ClassVar[LossSpec]

    def __init__(
        self,
        alpha: float = 3.0,
        mode: str = 'iou',
        eps: float = 1e-6,
        reduction: str = 'mean',
        loss_weight: float = 1.0,
        box_format: str = 'xyxy',
    ) -> None:
        super().__init__()
        check_reduction(reduction)
        check_box_format(box_format)
        check_alpha_iou_mode(mode)
        if alpha <= 0:
            raise ValueError(f'alpha must be > 0, got {alpha}')
        self.alpha = float(alpha)
        self.mode = mode
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
        loss = alpha_iou_loss(pred, target, weight, self.alpha, self.mode, self.eps, self.box_format)
        return self.loss_weight * reduce_loss(loss, reduction, avg_factor)


AlphaIoULoss.spec = LossSpec(
    functions=(alpha_iou_loss,),
    calls=BOX_CALLS,
    variants={
        'default': {},
        'giou': {'mode': 'giou', 'loss_weight': 2.0},
        'diou': {'mode': 'diou', 'alpha': 2.0, 'eps': 1e-07},
        'half': {'alpha': 0.5},
        'sum': {'mode': 'diou', 'reduction': 'sum'},
        'none': {'mode': 'giou', 'alpha': 1.5, 'reduction': 'none'},
        'xywh': {'box_format': 'xywh'},
        'ciou': {'mode': 'ciou', 'box_format': 'cxcywh'},
    },
    references=('https://arxiv.org/abs/2110.13675',),
)
