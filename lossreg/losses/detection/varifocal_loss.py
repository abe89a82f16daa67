"""Varifocal loss."""

from typing import ClassVar, Optional

import torch
from torch import Tensor, nn

from lossreg.arith import power, upcast
from lossreg.ops.binary_cross_entropy import binary_cross_entropy_with_logits
from lossreg.ops.pairs import counted_pair
from lossreg.ops.reductions import reduce_loss
from lossreg.options import check_reduction
from lossreg.registry import LOSSES
from lossreg.spec import Call, HostClass, Input, LossSpec, Role
from lossreg.spec_parts.detectors import AVG_FACTOR, zero_avg_factor
from lossreg.spec_parts.differences import no_broadcast


def varifocal_loss(
    pred: Tensor,
    target: Tensor,
    weight: Optional[Tensor] = None,
    alpha: float = 0.75,
    gamma: float = 2.0,
    iou_weighted: bool = True,
) -> Tensor:
    r"""Varifocal loss of each element: focusing applies to negatives only.

    .. math::
        \ell = w\,\mathrm{BCE}(p, t) \begin{cases}
            t & \text{where } t > 0, \text{ or 1 if not } \mathtt{iou\_weighted} \\
            \alpha\,|p - t|^\gamma & \text{elsewhere}
        \end{cases}, \qquad p = \sigma(x)

    Args:
        pred: logits x, of any shape.
        target: t in [0, 1]: the IoU at the class of a positive, 0 elsewhere. Of the same shape.
        weight: w, of the same shape, or with size 1 in dimensions 1 and 2. Where it is 0, NaN is ignored.
        alpha: factor of negatives, >= 0.
        gamma: focusing exponent of negatives, >= 0.
        iou_weighted: whether positives are weighted by their target.

    Returns:
        The losses, of the shape of ``pred``.

    Raises:
        ValueError: shapes do not match.
    """
    x, t = counted_pair(pred, target, weight)
    focus = alpha * power((torch.sigmoid(x) - t).abs(), gamma)
    focus = torch.where(t > 0, t, focus) if iou_weighted else torch.where(t > 0, 1.0, focus)
    loss = focus * binary_cross_entropy_with_logits(x, t)
    return loss if weight is None else loss * upcast(weight)


@LOSSES.register_module()
class VarifocalLoss(nn.Module):
    """Dense detection: class scores learn the IoU of their box; easy negatives are down-weighted.

    Drop-in replacement for ``mmdet.VarifocalLoss`` (same call and numbers); see :func:`varifocal_loss` for the formula.

    Args:
        use_sigmoid: must be True, as in mmdet.
        alpha: factor of negatives, >= 0.
        gamma: focusing exponent of negatives, >= 0.
        iou_weighted: whether positives are weighted by their target.
        reduction: ``none``, ``mean`` (over all elements, or by ``avg_factor``) or ``sum``.
        loss_weight: factor of the result.

    Shapes:
        Predictions, targets and weights of the same shape: (N, C) in VFNet, (B, N, C) in YOLOv6 and PPYOLOE. Returns a
        scalar, or that shape with reduction ``none``. An empty batch, all weights 0 or ``avg_factor=0`` give 0.

    Raises:
        ValueError: ``use_sigmoid=False``, negative ``alpha`` or ``gamma``, shapes do not match, ``avg_factor`` with
            ``reduction='sum'``.

    Reference:
        Zhang et al., VarifocalNet: An IoU-aware Dense Object Detector, CVPR 2021.
    """

    spec: ClassVar[LossSpec]

    def __init__(
        self,
        use_sigmoid: bool = True,
        alpha: float = 0.75,
        gamma: float = 2.0,
        iou_weighted: bool = True,
        reduction: str = 'mean',
        loss_weight: float = 1.0,
    ) -> None:
        super().__init__()
        check_reduction(reduction)
        if not use_sigmoid:
            raise ValueError('only the sigmoid varifocal loss exists, here as in mmdet; leave use_sigmoid=True')
        if alpha < 0 or gamma < 0:
            raise ValueError(f'alpha and gamma must be >= 0, got {alpha} and {gamma}')
        self.use_sigmoid = use_sigmoid
        self.alpha = float(alpha)
        self.gamma = float(gamma)
        self.iou_weighted = iou_weighted
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
        loss = varifocal_loss(pred, target, weight, self.alpha, self.gamma, self.iou_weighted)
        return self.loss_weight * reduce_loss(loss, reduction, avg_factor)


def _call(name: str, shape: str) -> Call:
    """A call with predictions of the given shape."""
    return Call(
        name,
        (
            Input('pred', Role.LOGITS, shape, differentiable=True),
            Input('target', Role.TARGETS, shape),
            Input('weight', Role.WEIGHTS, shape, optional=True, broadcasts=tuple(shape.split()[1:3])),
            AVG_FACTOR,
        ),
    )


VarifocalLoss.spec = LossSpec(
    functions=(varifocal_loss,),
    calls=(_call('anchors', 'N C'), _call('images', 'B N C')),
    variants={
        'default': {},
        'yolo': {'reduction': 'sum'},
        'unweighted': {'iou_weighted': False, 'alpha': 0.5, 'gamma': 1.5, 'loss_weight': 2.0},
        'none': {'reduction': 'none', 'gamma': 0.5},
    },
    references=('https://arxiv.org/abs/2008.13367',),
    stands_in_for=(HostClass('mmdet.VarifocalLoss'),),
    differences=(
        zero_avg_factor('mmdet.VarifocalLoss'),
        no_broadcast('mmdet.VarifocalLoss', 'tests/openmmlab/test_mmdet.py'),
    ),
)
