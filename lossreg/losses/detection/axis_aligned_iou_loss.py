"""IoU loss of axis-aligned 3-D boxes."""

from typing import ClassVar, Optional

import torch
from torch import Tensor, nn

from lossreg.arith import check_leading_shape, check_same_shape, check_size, keep, upcast
from lossreg.ops.reductions import reduce_loss
from lossreg.options import check_reduction
from lossreg.registry import LOSSES
from lossreg.spec import Call, HostClass, Input, LossSpec, Role
from lossreg.spec_parts.detectors import AVG_FACTOR, zero_avg_factor


def axis_aligned_iou_loss(pred: Tensor, target: Tensor, weight: Optional[Tensor] = None) -> Tensor:
    r"""1 - IoU of aligned pairs of 3-D boxes, weighted.

    .. math::
        \ell = w \left(1 - \frac{I}{\max(V_p + V_t - I, 10^{-6})}\right)

    I is the volume of the intersection, :math:`V_p` and :math:`V_t` are the volumes of the boxes.

    Args:
        pred: boxes, (N, 6) or (B, N, 6): x1, y1, z1, x2, y2, z2.
        target: boxes, of the same shape.
        weight: w, of that shape without the last dimension. Where it is 0, NaN is ignored.

    Returns:
        (N) or (B, N).

    Raises:
        ValueError: shapes do not match.
    """
    check_size(pred, -1, 6, 'pred', 'box coordinates')
    check_same_shape(target, pred, 'target', 'pred')
    p, t = upcast(pred), upcast(target)
    if weight is not None:
        check_leading_shape(weight, pred, pred.dim() - 1, 'weight', 'pred')
        weight = upcast(weight)
        counted = (weight != 0).unsqueeze(-1)
        p, t = keep(p, counted), keep(t, counted)
    px1, py1, pz1, px2, py2, pz2 = p.unbind(-1)
    tx1, ty1, tz1, tx2, ty2, tz2 = t.unbind(-1)
    x, y, z = _overlap(px1, px2, tx1, tx2), _overlap(py1, py2, ty1, ty2), _overlap(pz1, pz2, tz1, tz2)
    intersection = x * y * z
    p_volume, t_volume = (px2 - px1) * (py2 - py1) * (pz2 - pz1), (tx2 - tx1) * (ty2 - ty1) * (tz2 - tz1)
    # I / (V_p + V_t - I)
    loss = 1.0 - intersection / (p_volume + t_volume - intersection).clamp(min=1e-6)
    return loss if weight is None else loss * weight


def _overlap(p1: Tensor, p2: Tensor, t1: Tensor, t2: Tensor) -> Tensor:
    """Length of the overlap of two intervals."""
    return (torch.minimum(p2, t2) - torch.maximum(p1, t1)).clamp(min=0.0)


@LOSSES.register_module()
class AxisAlignedIoULoss(nn.Module):
    """Regression of 3-D boxes without a heading: 1 - IoU.

    Drop-in replacement for ``mmdet3d.AxisAlignedIoULoss`` (same call and numbers); see :func:`axis_aligned_iou_loss`
    for the formula.

    Args:
        reduction: ``none``, ``mean`` (over boxes, or by ``avg_factor``) or ``sum``.
        loss_weight: factor of the result.

    Shapes:
        Boxes (N, 6) or (B, N, 6); weights (N) or (B, N). Returns a scalar, or the shape of the weights with reduction
        ``none``. An empty batch, all weights 0 or ``avg_factor=0`` give 0. Boxes without volume give a finite loss.

    Raises:
        ValueError: shapes do not match, ``avg_factor`` with ``reduction='sum'``.

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
        loss = axis_aligned_iou_loss(pred, target, weight)
        return self.loss_weight * reduce_loss(loss, reduction, avg_factor)


AxisAlignedIoULoss.spec = LossSpec(
    functions=(axis_aligned_iou_loss,),
    calls=tuple(
        Call(
            name,
            (
                Input('pred', Role.BOXES, f'{shape} 6', differentiable=True),
                Input('target', Role.BOXES, f'{shape} 6'),
                Input('weight', Role.WEIGHTS, shape, optional=True),
                AVG_FACTOR,
            ),
        )
        for name, shape in (('boxes', 'N'), ('proposals', 'B N'))
    ),
    variants={
        'default': {},
        'votenet': {'reduction': 'sum', 'loss_weight': 10.0 / 3.0},
        'none': {'reduction': 'none'},
    },
    references=('https://arxiv.org/abs/1908.03851',),
    stands_in_for=(HostClass('mmdet3d.AxisAlignedIoULoss'),),
    differences=(zero_avg_factor('mmdet3d.AxisAlignedIoULoss'),),
)
