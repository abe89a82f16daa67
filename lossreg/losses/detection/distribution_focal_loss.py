"""Distribution focal loss."""

from collections.abc import Mapping
from typing import ClassVar, Optional

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lossreg.arith import (
    check_at_least,
    check_dim,
    check_leading_shape,
    check_numbers,
    check_same_shape,
    keep,
    poison,
    upcast,
)
from lossreg.ops.reductions import reduce_loss
from lossreg.options import check_reduction
from lossreg.registry import LOSSES
from lossreg.spec import Call, HostClass, Input, LossSpec, Role
from lossreg.spec_parts.detectors import AVG_FACTOR, zero_avg_factor


def distribution_focal_loss(pred: Tensor, target: Tensor, weight: Optional[Tensor] = None) -> Tensor:
    r"""Cross-entropy of each distance, split between its two neighbouring bins.

    .. math::
        \ell = -w \left((b + 1 - t) \log p_b + (t - b) \log p_{b+1}\right), \qquad
        b = \lfloor t \rfloor, \quad p = \mathrm{softmax}(x)

    Args:
        pred: logits x of the bins 0 to n, (N, n + 1).
        target: distances t from 0 to below n, (N). From -1 to 0, b is 0, as in mmdet. NaN gives NaN.
        weight: w, (N). Where it is 0, NaN is ignored.

    Returns:
        The losses, (N).

    Raises:
        ValueError: shapes do not match.
        IndexError: a distance out of range (eager on the CPU; elsewhere that sample's loss is NaN).
    """
    check_dim(pred, 2, 'pred')
    check_dim(target, 1, 'target')
    check_leading_shape(target, pred, 1, 'target', 'pred')
    check_at_least(pred, 1, 1, 'pred', 'a distribution over bins')
    x, t, last = upcast(pred), upcast(target), pred.size(1) - 1
    counted = torch.ones_like(t, dtype=torch.bool)
    if weight is not None:
        check_same_shape(weight, target, 'weight', 'target')
        counted, weight = weight != 0, upcast(weight)
    # samples of weight 0 may hold NaN, but no illegal numbers
    t = torch.where(counted | (t == t), t, 0.0)
    legal = check_numbers(t, (t > -1) & (t < last), 'target', 'distances are below {}', last)
    left = keep(t, legal).long()
    on_left, on_right = (left + 1).to(t.dtype) - t, t - left.to(t.dtype)
    log_p = F.log_softmax(keep(x, (counted | ~legal).unsqueeze(1)), dim=1)
    log_left = log_p.gather(1, left.unsqueeze(1)).squeeze(1)
    log_right = log_p.gather(1, (left + legal.long()).unsqueeze(1)).squeeze(1)
    # -(b + 1 - t) log p_b - (t - b) log p_{b+1}, without 0 log 0
    loss = poison(-on_left * log_left - torch.where(on_right == 0, 0.0, on_right * log_right), legal)
    return loss if weight is None else loss * weight


@LOSSES.register_module()
class DistributionFocalLoss(nn.Module):
    """Box regression by distributions (GFL): cross-entropy of the two bins next to each distance.

    Drop-in replacement for ``mmdet.DistributionFocalLoss`` (same call and numbers); see :func:`distribution_focal_loss`
    for the formula.

    Args:
        reduction: ``none``, ``mean`` (over the N distances, or by ``avg_factor``) or ``sum``.
        loss_weight: factor of the result.

    Shapes:
        Predictions (N, n + 1); distances and weights (N). Returns a scalar, or (N) with reduction ``none``. An empty
        batch, all weights 0 or ``avg_factor=0`` give 0.

    Raises:
        ValueError: shapes do not match, ``avg_factor`` with ``reduction='sum'``.
        IndexError: a distance out of range, in eager mode on the CPU; NaN elsewhere.

    Reference:
        Li et al., Generalized Focal Loss: Learning Qualified and Distributed Bounding Boxes for Dense Object
        Detection, NeurIPS 2020.
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
        return self.loss_weight * reduce_loss(distribution_focal_loss(pred, target, weight), reduction, avg_factor)


def _distances(loss: DistributionFocalLoss, drawn: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """Distances for the drawn bins, at most a tenth of a bin below the last, as in heads; 1 becomes an integer."""
    last, share = drawn['pred'].size(1) - 1, drawn['target']
    return {'target': torch.where(share == 1, last - 1.0, share * (last - 0.1))}


DistributionFocalLoss.spec = LossSpec(
    functions=(distribution_focal_loss,),
    calls=(
        Call(
            'distances',
            (
                Input('pred', Role.LOGITS, 'N B', differentiable=True),
                Input('target', Role.TARGETS, 'N', limit=1.0),
                Input('weight', Role.WEIGHTS, 'N', optional=True),
                AVG_FACTOR,
            ),
            consistent=_distances,
        ),
    ),
    variants={
        'default': {},
        'gfl': {'loss_weight': 0.25},
        'sum': {'reduction': 'sum', 'loss_weight': 0.375},
        'none': {'reduction': 'none'},
    },
    at_least=lambda loss: {'B': 2},
    references=('https://arxiv.org/abs/2006.04388',),
    stands_in_for=(HostClass('mmdet.DistributionFocalLoss'),),
    differences=(zero_avg_factor('mmdet.DistributionFocalLoss'),),
)
