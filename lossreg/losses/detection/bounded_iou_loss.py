"""Bounded IoU loss of axis-aligned boxes."""

from typing import ClassVar, Optional

import torch
from torch import Tensor, nn

from lossreg.arith import check_leading_shape, keep, upcast
from lossreg.ops.boxes import centre_offset, check_box_format, check_boxes, corners, smoothed
from lossreg.ops.reductions import reduce_loss
from lossreg.options import check_not_negative, check_reduction
from lossreg.registry import LOSSES
from lossreg.spec import Call, Difference, HostClass, Input, LossSpec, Role
from lossreg.spec_parts.detectors import AVG_FACTOR, zero_avg_factor


def bounded_iou_loss(
    pred: Tensor,
    target: Tensor,
    weight: Optional[Tensor] = None,
    beta: float = 0.2,
    eps: float = 1e-3,
    box_format: str = 'xyxy',
) -> Tensor:
    r"""Loss of the best IoU that each coordinate on its own still permits, for aligned pairs of boxes, weighted.

    .. math::
        \ell = w \begin{cases} x^2 / (2 \beta) & x < \beta \\ x - \beta / 2 & \text{else} \end{cases}, \qquad
        x = 1 - \max\left(\frac{d_t - 2 |\Delta|}{d_t + 2 |\Delta| + \epsilon}, 0\right)
        \text{ or } 1 - \min\left(\frac{d_t}{d_p + \epsilon}, \frac{d_p}{d_t + \epsilon}\right)

    The first is for the centre, shifted by :math:`\Delta` along x or y, the second for the size d, width or height.
    There is no gradient with respect to ``target``.

    Args:
        pred: boxes, (N, 4).
        target: boxes, (N, 4).
        weight: w, (N, 4) for the centre's x and y, the width and the height, or (N). NaN in a coordinate is ignored
            where all weights of its axis are 0.
        beta: where the loss turns from quadratic to linear; 0 for linear throughout.
        eps: added to the denominators.
        box_format: what the four numbers are: ``xyxy`` (two corners), ``xywh`` (the first corner and the size) or
            ``cxcywh`` (the centre and the size).

    Returns:
        (N, 4), for the centre's x and y, the width and the height.

    Raises:
        ValueError: shapes do not match, unknown ``box_format``.
    """
    check_boxes(pred, target)
    pred, target = upcast(pred), upcast(target).detach()
    if weight is not None:
        check_leading_shape(weight, pred, weight.dim(), 'weight', 'pred')
        weight = upcast(weight)
        weight = weight.unsqueeze(1).expand_as(pred) if weight.dim() == 1 else weight
        # in every format x determines columns 0 and 2, y columns 1 and 3
        used = weight != 0
        counted = (used[:, :2] | used[:, 2:]).repeat([1, 2])
        pred, target = keep(pred, counted), keep(target, counted)
    p1, p2 = corners(pred, box_format)
    t1, t2 = corners(target, box_format)
    p_size, t_size = p2 - p1, t2 - t1
    # max((d_t - 2 |D|) / (d_t + 2 |D| + eps), 0)
    shift = 2.0 * centre_offset(p1, p2, t1, t2).abs()
    centre = (t_size - shift) / (t_size + shift + eps)
    centre = torch.maximum(centre, torch.zeros_like(centre))
    # min(d_t / (d_p + eps), d_p / (d_t + eps))
    size = torch.minimum(t_size / (p_size + eps), p_size / (t_size + eps))
    loss = smoothed(1.0 - torch.cat([centre, size]), beta).t()
    return loss if weight is None else loss * weight


@LOSSES.register_module()
class BoundedIoULoss(nn.Module):
    """Box regression: the best IoU that each coordinate on its own still permits.

    Drop-in replacement for ``mmdet.BoundedIoULoss`` (same call and numbers); see :func:`bounded_iou_loss` for the
    formula.

    Args:
        beta: where the loss turns from quadratic to linear; 0 for linear throughout.
        eps: added to the denominators.
        reduction: ``none``, ``mean`` (over all N * 4 elements, or by ``avg_factor``) or ``sum``.
        loss_weight: factor of the result.
        box_format: ``xyxy`` (two corners), ``xywh`` (the first corner and the size) or ``cxcywh`` (the centre and the
            size).

    Shapes:
        Boxes (N, 4); weights (N, 4), of the centre's x and y, the width and the height, or (N). Returns a scalar, or
        (N, 4) with reduction ``none``. An empty batch, all weights 0 or ``avg_factor=0`` give 0. Degenerate boxes give
        a finite loss.

    Raises:
        ValueError: unknown ``reduction`` or ``box_format``, negative ``beta``, shapes do not match,
            ``avg_factor`` with ``reduction='sum'``.

    Reference:
        Tychsen-Smith and Petersson, Improving Object Localization with Fitness NMS and Bounded IoU Loss, CVPR 2018.
    """

    spec: ClassVar[LossSpec]

    def __init__(
        self,
        beta: float = 0.2,
        eps: float = 1e-3,
        reduction: str = 'mean',
        loss_weight: float = 1.0,
        box_format: str = 'xyxy',
    ) -> None:
        super().__init__()
        check_reduction(reduction)
        check_box_format(box_format)
        check_not_negative(beta, 'beta')
        self.beta = float(beta)
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
        loss = bounded_iou_loss(pred, target, weight, self.beta, self.eps, self.box_format)
        return self.loss_weight * reduce_loss(loss, reduction, avg_factor)


def _call(name: str, weight_shape: str, optional: bool) -> Call:
    """A call with weights of the given shape."""
    return Call(
        name,
        (
            Input('pred', Role.BOXES, 'N 4', differentiable=True),
            Input('target', Role.BOXES, 'N 4'),
            Input('weight', Role.WEIGHTS, weight_shape, optional=optional),
            AVG_FACTOR,
        ),
    )


BoundedIoULoss.spec = LossSpec(
    functions=(bounded_iou_loss,),
    calls=(_call('boxes', 'N 4', optional=True), _call('box_weights', 'N', optional=False)),
    variants={
        'default': {},
        'weighted': {'loss_weight': 10.0, 'eps': 1e-2, 'beta': 0.5},
        'line': {'beta': 0.0},
        'sum': {'reduction': 'sum'},
        'none': {'reduction': 'none'},
        'xywh': {'box_format': 'xywh'},
        'cxcywh': {'box_format': 'cxcywh'},
    },
    references=('https://arxiv.org/abs/1711.00164',),
    stands_in_for=(HostClass('mmdet.BoundedIoULoss', call='boxes'),),
    differences=(
        Difference(
            'mmdet.BoundedIoULoss',
            'weights (N) are one for each box; mmdet applies them to the four numbers of a box, so it needs N = 4 or 1',
            'all other box losses read them so, and so does the host where N = 1',
            'tests/openmmlab/test_mmdet.py',
        ),
        Difference(
            'mmdet.BoundedIoULoss',
            "all weights 0 with reduction='none' gives (N, 4) zeros; mmdet gives one scalar 0",
            'the shape of the result does not depend on values, or no graph could hold it',
            'tests/test_differences.py',
        ),
        zero_avg_factor('mmdet.BoundedIoULoss'),
    ),
)
