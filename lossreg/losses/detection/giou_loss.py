"""Generalised IoU loss of axis-aligned boxes."""

from typing import ClassVar, Optional

import torch
from torch import Tensor, nn

from lossreg.arith import (
    check_dim,
    check_leading_shape,
    check_reduction,
    check_same_shape,
    check_size,
    keep,
    reduce_loss,
    upcast,
)
from lossreg.registry import LOSSES
from lossreg.spec import AVG_FACTOR, Call, Difference, HostClass, Input, LossSpec, Role, zero_avg_factor


def giou_loss(pred: Tensor, target: Tensor, weight: Optional[Tensor] = None, eps: float = 1e-6) -> Tensor:
    r"""1 - GIoU of aligned pairs of boxes, weighted.

    .. math::
        \ell = w - w \left(\frac{I}{U} - \frac{E - U}{E}\right)

    I is the area of the intersection, U that of the union, E that of the smallest box around both; U and E are kept
    at or above ``eps``. A box with x2 < x1 has a negative width, as in mmdet.

    Args:
        pred: boxes (x1, y1, x2, y2), (N, 4).
        target: boxes (x1, y1, x2, y2), (N, 4).
        weight: w, (N), or (N, 4), of which the mean over the coordinates counts. Where that is 0, NaN does not count.
        eps: smallest area of the denominators.

    Returns:
        (N).

    Raises:
        ValueError: shapes do not match.
    """
    check_dim(pred, 2, 'pred')
    check_size(pred, 1, 4, 'pred', 'box coordinates')
    check_same_shape(target, pred, 'target', 'pred')
    pred, target = upcast(pred), upcast(target)
    if weight is not None:
        check_leading_shape(weight, pred, weight.dim(), 'weight', 'pred')
        weight = upcast(weight)
        weight = weight.mean(-1) if weight.dim() == 2 else weight
        counted = (weight != 0).unsqueeze(1)
        pred, target = keep(pred, counted), keep(target, counted)
    # one transposition, so that every coordinate is contiguous
    x1, y1, x2, y2 = pred.t().contiguous().unbind(0)
    u1, v1, u2, v2 = target.t().contiguous().unbind(0)
    # I = overlap width x overlap height
    overlap_w = (torch.minimum(x2, u2) - torch.maximum(x1, u1)).clamp(min=0.0)
    overlap_h = (torch.minimum(y2, v2) - torch.maximum(y1, v1)).clamp(min=0.0)
    overlap = overlap_w * overlap_h
    # U = area of pred + area of target - I
    union = ((x2 - x1) * (y2 - y1) + (u2 - u1) * (v2 - v1) - overlap).clamp(min=eps)
    # E = width x height of the box around both
    hull_w = (torch.maximum(x2, u2) - torch.minimum(x1, u1)).clamp(min=0.0)
    hull_h = (torch.maximum(y2, v2) - torch.minimum(y1, v1)).clamp(min=0.0)
    hull = (hull_w * hull_h).clamp(min=eps)
    loss = 1.0 - (overlap / union - (hull - union) / hull)
    return loss if weight is None else loss * weight


@LOSSES.register_module()
class GIoULoss(nn.Module):
    """GIoU loss with mmdet's call and numbers; see :func:`giou_loss` for the formula.

    Args:
        eps: smallest area of union and hull.
        reduction: ``none``, ``mean`` (over boxes, or by ``avg_factor``) or ``sum``.
        loss_weight: factor of the result.

    Shapes:
        Boxes (N, 4); weights (N), or (N, 4), of which the mean over the coordinates counts. Returns a scalar, or (N)
        with reduction ``none``. An empty batch, all weights 0 or ``avg_factor=0`` give 0. Degenerate boxes are finite.

    Raises:
        ValueError: shapes do not match, ``avg_factor`` with ``reduction='sum'``.

    Reference:
        Rezatofighi et al., Generalized Intersection over Union, CVPR 2019.
    """

    spec: ClassVar[LossSpec]

    def __init__(self, eps: float = 1e-6, reduction: str = 'mean', loss_weight: float = 1.0) -> None:
        super().__init__()
        check_reduction(reduction)
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
        loss = giou_loss(pred, target, weight, self.eps)
        return self.loss_weight * reduce_loss(loss, reduction, avg_factor)


def _call(name: str, weight_shape: str, optional: bool) -> Call:
    """A call with weights of one shape."""
    return Call(
        name,
        (
            Input('pred', Role.BOXES, 'N 4', differentiable=True),
            Input('target', Role.BOXES, 'N 4'),
            Input('weight', Role.WEIGHTS, weight_shape, optional=optional),
            AVG_FACTOR,
        ),
    )


GIoULoss.spec = LossSpec(
    functions=(giou_loss,),
    calls=(_call('boxes', 'N', optional=True), _call('coordinate_weights', 'N 4', optional=False)),
    variants={
        'default': {},
        'weighted': {'loss_weight': 2.0, 'eps': 1e-7},
        'sum': {'reduction': 'sum'},
        'none': {'reduction': 'none'},
    },
    references=('https://arxiv.org/abs/1902.09630',),
    stands_in_for=(HostClass('mmdet.GIoULoss'),),
    differences=(
        Difference(
            'mmdet.GIoULoss',
            "all weights 0 with reduction='none' gives (N) zeros; mmdet gives one scalar 0",
            'the shape of the result does not depend on values, or no graph could hold it',
            'tests/test_contract.py',
        ),
        zero_avg_factor('mmdet.GIoULoss'),
    ),
)
