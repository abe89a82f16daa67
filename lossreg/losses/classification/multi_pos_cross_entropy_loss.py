"""Softmax cross-entropy with several positives."""

from typing import ClassVar, Optional

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lossreg.arith import (
    check_dim,
    check_leading_shape,
    check_numbers,
    check_same_shape,
    keep,
    log_sum_exp,
    poison,
    softplus,
    upcast,
)
from lossreg.ops.reductions import reduce_loss
from lossreg.options import check_reduction
from lossreg.registry import LOSSES
from lossreg.spec import Call, Difference, HostClass, Input, LossSpec, Role
from lossreg.spec_parts.detectors import AVG_FACTOR, zero_avg_factor
from lossreg.spec_parts.differences import no_broadcast


def multi_pos_cross_entropy_loss(cls_score: Tensor, label: Tensor, weight: Optional[Tensor] = None) -> Tensor:
    r"""Cross-entropy of each sample, which asks all its positives to score higher than its negatives.

    .. math::
        \ell_i = w_i \log\left(1 + \sum_{p \in P_i} \sum_{n \in N_i} e^{x_{in} - x_{ip}}\right)
        = w_i \log\left(1 + \sum_{p \in P_i} e^{-x_{ip}} \sum_{n \in N_i} e^{x_{in}}\right)

    Args:
        cls_score: scores x, (N, C).
        label: 1 or more for positives P, 0 for negatives N, (N, C). NaN gives NaN.
        weight: w, (N). Where it is 0, NaN is ignored.

    Returns:
        The losses, (N); 0 without positives or without negatives.

    Raises:
        ValueError: shapes do not match.
        IndexError: a label that is neither 0 nor at least 1 (eager on the CPU; elsewhere that sample's loss is NaN).
    """
    check_dim(cls_score, 2, 'cls_score')
    check_same_shape(label, cls_score, 'label', 'cls_score')
    x, label = upcast(cls_score), upcast(label)
    positive, negative = label >= 1, label == 0
    legal = check_numbers(label, positive | negative, 'label', 'labels are 0, or at least 1')
    if weight is not None:
        check_dim(weight, 1, 'weight')
        check_leading_shape(weight, cls_score, 1, 'weight', 'cls_score')
        counted, weight = (weight != 0).unsqueeze(1), upcast(weight)
        # samples of weight 0 may hold NaN labels, but no illegal numbers
        legal = legal | (~counted & (label != label))
        x = keep(x, counted | ~legal)
    # a finite value in place of -inf: the gradient of an empty sum is then 0
    least_positive, positives = log_sum_exp(F.pad(torch.where(positive, -x, -1e30), [0, 1], value=-1e30))
    largest_negative, negatives = log_sum_exp(F.pad(torch.where(negative, x, -1e30), [0, 1], value=-1e30))
    # log(1 + sum e^-x_p sum e^x_n)
    z = (least_positive + largest_negative) + (positives + negatives)
    loss = poison(softplus(z), legal.all(1))
    return loss if weight is None else loss * weight


@LOSSES.register_module()
class MultiPosCrossEntropyLoss(nn.Module):
    """Matching of tracked objects (QDTrack): cross-entropy with several positives per sample.

    Drop-in replacement for ``mmdet.MultiPosCrossEntropyLoss`` (same call and numbers); see
    :func:`multi_pos_cross_entropy_loss` for the formula.

    Args:
        reduction: ``none``, ``mean`` (over the N samples, or by ``avg_factor``) or ``sum``.
        loss_weight: factor of the result.

    Shapes:
        Scores and labels (N, C), weights (N). Returns a scalar, or (N) with reduction ``none``. An empty batch, all
        weights 0 or ``avg_factor=0`` give 0.

    Raises:
        ValueError: shapes do not match, ``avg_factor`` with ``reduction='sum'``.
        IndexError: a label that is neither 0 nor at least 1, in eager mode on the CPU; NaN elsewhere.

    Reference:
        Pang et al., Quasi-Dense Similarity Learning for Multiple Object Tracking, CVPR 2021.
    """

    spec: ClassVar[LossSpec]

    def __init__(self, reduction: str = 'mean', loss_weight: float = 1.0) -> None:
        super().__init__()
        check_reduction(reduction)
        self.reduction = reduction
        self.loss_weight = float(loss_weight)

    def forward(
        self,
        cls_score: Tensor,
        label: Tensor,
        weight: Optional[Tensor] = None,
        avg_factor: Optional[float] = None,
        reduction_override: Optional[str] = None,
    ) -> Tensor:
        """Computes the loss; ``reduction_override`` replaces the constructor's reduction for this call."""
        reduction = self.reduction if reduction_override is None else reduction_override
        loss = multi_pos_cross_entropy_loss(cls_score, label, weight)
        return self.loss_weight * reduce_loss(loss, reduction, avg_factor)


MultiPosCrossEntropyLoss.spec = LossSpec(
    functions=(multi_pos_cross_entropy_loss,),
    calls=(
        Call(
            'matches',
            (
                Input('cls_score', Role.LOGITS, 'N C', differentiable=True),
                Input('label', Role.BINARY, 'N C'),
                Input('weight', Role.WEIGHTS, 'N', optional=True),
                AVG_FACTOR,
            ),
        ),
    ),
    variants={
        'default': {},
        'qdtrack': {'loss_weight': 0.25},
        'sum': {'reduction': 'sum'},
        'none': {'reduction': 'none'},
    },
    references=('https://arxiv.org/abs/2006.06664',),
    stands_in_for=(HostClass('mmdet.MultiPosCrossEntropyLoss'),),
    differences=(
        zero_avg_factor('mmdet.MultiPosCrossEntropyLoss'),
        no_broadcast('mmdet.MultiPosCrossEntropyLoss', 'tests/openmmlab/test_mmdet.py'),
        Difference(
            'mmdet.MultiPosCrossEntropyLoss',
            'a label that is neither 0 nor at least 1 is an error (NaN in artefacts); mmdet takes it as both, with '
            'score 0',
            'contract 4: it has no meaning',
            'tests/openmmlab/test_mmdet.py',
        ),
    ),
)
