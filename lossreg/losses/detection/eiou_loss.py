"""Extended-IoU loss of axis-aligned boxes."""

from typing import ClassVar, Optional

import torch
from torch import Tensor, nn

from lossreg.ops.boxes import area, check_box_format, corners, counted_boxes, inner_size, smoothed
from lossreg.ops.reductions import reduce_loss
from lossreg.options import check_reduction
from lossreg.registry import LOSSES
from lossreg.spec import HostClass, LossSpec
from lossreg.spec_parts.detectors import BOX_CALLS, scalar_without_weight, zero_avg_factor


def eiou_loss(
    pred: Tensor,
    target: Tensor,
    weight: Optional[Tensor] = None,
    smooth_point: float = 0.1,
    eps: float = 1e-6,
    box_format: str = 'xyxy',
) -> Tensor:
    r"""Loss of the extended IoU of aligned pairs of boxes, weighted.

    .. math::
        \ell = w \begin{cases} x^2 / (2 s) & x < s \\ x - s / 2 & \text{else} \end{cases}, \qquad
        x = 1 - \frac{I}{A_p + A_t - I + \epsilon}, \qquad
        I = w_i^+ h_i^+ + w_i^- (y_1 + y_2 - 2 y_0) + h_i^- (x_1 + x_2 - 2 x_0)

    :math:`A_p` and :math:`A_t` are the areas of the boxes, :math:`(x_1, y_1)` and :math:`(x_2, y_2)` the corners of
    their intersection and :math:`(x_0, y_0)` the first one of the smallest enclosing box. :math:`w_i = x_2 - x_1` and
    :math:`h_i = y_2 - y_1` are minus the gap where boxes are apart; + and - are their positive and negative parts. So I
    is the area of the intersection where boxes overlap, and negative where they do not: the loss still pulls them
    together.

    Args:
        pred: boxes, (N, 4).
        target: boxes, (N, 4).
        weight: w, (N), or (N, 4), averaged over the coordinates. Where the mean is 0, NaN is ignored.
        smooth_point: s, where the loss turns from quadratic to linear; 0 for linear throughout.
        eps: added to the union.
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
    # I: the paper's four products of distances from (x0, y0) cancel; here all terms have the same sign
    zero = torch.zeros_like(inner)
    gap = torch.minimum(inner, zero)
    # x1 + x2 - 2 x0 and y1 + y2 - 2 y0
    reach = (torch.maximum(p1, t1) + torch.minimum(p2, t2)) - 2.0 * torch.minimum(p1, t1)
    x_gap, y_gap = gap.unbind(0)
    x_reach, y_reach = reach.unbind(0)
    intersection = area(torch.maximum(inner, zero)) + (x_gap * y_reach + y_gap * x_reach)
    areas = area(p_size) + area(t_size) + eps
    # 1 - I / U = 2 - (U + I) / U: take the form whose derivative has no terms that cancel
    far = intersection < -areas
    ratio = torch.where(far, areas, intersection) / (areas - intersection)
    x = torch.where(far, 2.0 - ratio, 1.0 - ratio)
    loss = smoothed(x, smooth_point)
    return loss if weight is None else loss * weight


@LOSSES.register_module()
class EIoULoss(nn.Module):
    """Box regression: IoU extended to boxes that do not overlap, smoothed near its optimum.

    Drop-in replacement for ``mmdet.EIoULoss`` (same call and numbers); see :func:`eiou_loss` for the formula.

    Args:
        eps: added to the union.
        reduction: ``none``, ``mean`` (over boxes, or by ``avg_factor``) or ``sum``.
        loss_weight: factor of the result.
        smooth_point: where the loss turns from quadratic to linear; 0 for linear throughout.
        box_format: ``xyxy`` (two corners), ``xywh`` (the first corner and the size) or ``cxcywh`` (the centre and the
            size).

    Shapes:
        Boxes (N, 4); weights (N), or (N, 4), averaged over the coordinates. Returns a scalar, or (N) with reduction
        ``none``. An empty batch, all weights 0 or ``avg_factor=0`` give 0. Degenerate boxes give a finite loss.

    Raises:
        ValueError: unknown ``reduction`` or ``box_format``, shapes do not match,
            ``avg_factor`` with ``reduction='sum'``.

    Reference:
        Peng and Yu, A Systematic IoU-Related Method: Beyond Simplified Regression for Better Localization, IEEE
        Transactions on Image Processing 2021.
    """

    spec: ClassVar[LossSpec]

    def __init__(
        self,
        eps: float = 1e-6,
        reduction: str = 'mean',
        loss_weight: float = 1.0,
        smooth_point: float = 0.1,
        box_format: str = 'xyxy',
    ) -> None:
        super().__init__()
        check_reduction(reduction)
        check_box_format(box_format)
        self.eps = float(eps)
        self.reduction = reduction
        self.loss_weight = float(loss_weight)
        self.smooth_point = float(smooth_point)
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
        loss = eiou_loss(pred, target, weight, self.smooth_point, self.eps, self.box_format)
        return self.loss_weight * reduce_loss(loss, reduction, avg_factor)


EIoULoss.spec = LossSpec(
    functions=(eiou_loss,),
    calls=BOX_CALLS,
    variants={
        'default': {},
        'weighted': {'loss_weight': 2.0, 'eps': 1e-07},
        'late': {'smooth_point': 0.9},
        'sum': {'reduction': 'sum'},
        'none': {'reduction': 'none'},
        'xywh': {'box_format': 'xywh'},
        'cxcywh': {'box_format': 'cxcywh'},
    },
    references=('https://arxiv.org/abs/2112.01793',),
    stands_in_for=(HostClass('mmdet.EIoULoss'),),
    differences=(
        scalar_without_weight('mmdet.EIoULoss'),
        zero_avg_factor('mmdet.EIoULoss'),
    ),
)
