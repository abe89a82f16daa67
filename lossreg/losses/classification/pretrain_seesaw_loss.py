"""Seesaw loss for long-tailed classes, called as in mmpretrain's classifiers."""

from collections.abc import Mapping
from typing import ClassVar, Optional, Tuple

import torch
from torch import Tensor, nn

from lossreg.arith import check_labels, check_size, indices
from lossreg.losses.classification.seesaw_loss import check_seesaw_options, count_samples, seesaw_loss
from lossreg.ops.reductions import reduce_loss
from lossreg.options import check_reduction
from lossreg.registry import LOSSES
from lossreg.spec import Call, Difference, HostClass, Input, LossSpec, Role
from lossreg.spec_parts.detectors import AVG_FACTOR


@LOSSES.register_module()
class PretrainSeesawLoss(nn.Module):
    """Long-tailed classification: samples of frequent classes suppress rare classes less.

    Drop-in replacement for ``mmpretrain.SeesawLoss`` (same call and numbers); see
    :func:`~lossreg.functional.seesaw_loss` for the formula.

    ``cum_samples``, a buffer, counts the samples of each class, regardless of weight. ``forward`` always includes the
    batch in the counts it uses, but stores them in training mode only. Artefacts take ``cum_samples`` and return
    ``next_cum_samples``.

    Args:
        use_sigmoid: must be False, as in mmpretrain.
        p: exponent of the mitigation factor; 0 disables it.
        q: exponent of the compensation factor; 0 disables it.
        num_classes: C.
        eps: lower bound of the divisor in the score ratio, > 0.
        reduction: ``none``, ``mean`` (over the N samples, or by ``avg_factor``) or ``sum``.
        loss_weight: factor of the result.

    Shapes:
        Scores (N, C), labels and weights (N), ``cum_samples`` (C). Returns a scalar, or (N) with reduction ``none``. An
        empty batch, all weights 0 or ``avg_factor=0`` give 0.

    Raises:
        ValueError: ``use_sigmoid=True``, shapes do not match, ``avg_factor`` with ``reduction='sum'``.
        IndexError: a label out of range, in eager mode on the CPU; NaN elsewhere.

    Reference:
        Wang et al., Seesaw Loss for Long-Tailed Instance Segmentation, CVPR 2021.
    """

    spec: ClassVar[LossSpec]
    cum_samples: Tensor

    def __init__(
        self,
        use_sigmoid: bool = False,
        p: float = 0.8,
        q: float = 2.0,
        num_classes: int = 1000,
        eps: float = 1e-2,
        reduction: str = 'mean',
        loss_weight: float = 1.0,
    ) -> None:
        super().__init__()
        check_reduction(reduction)
        check_seesaw_options(use_sigmoid, eps)
        self.use_sigmoid = use_sigmoid
        self.p = float(p)
        self.q = float(q)
        self.num_classes = num_classes
        self.eps = float(eps)
        self.reduction = reduction
        self.loss_weight = float(loss_weight)
        self.register_buffer('cum_samples', torch.zeros(num_classes, dtype=torch.int64))

    def forward(
        self,
        cls_score: Tensor,
        labels: Tensor,
        weight: Optional[Tensor] = None,
        avg_factor: Optional[float] = None,
        reduction_override: Optional[str] = None,
    ) -> Tensor:
        """Computes the loss and, in training mode, counts; ``reduction_override`` replaces the reduction."""
        loss, counted = self.step(cls_score, labels, self.cum_samples, weight, avg_factor, reduction_override)
        if self.training:
            self.cum_samples = counted
        return loss

    def step(
        self,
        cls_score: Tensor,
        labels: Tensor,
        cum_samples: Tensor,
        weight: Optional[Tensor] = None,
        avg_factor: Optional[float] = None,
        reduction_override: Optional[str] = None,
    ) -> Tuple[Tensor, Tensor]:
        """The loss, and the samples counted after this batch. Changes nothing."""
        reduction = self.reduction if reduction_override is None else reduction_override
        check_size(cls_score, -1, cum_samples.size(0), 'cls_score', 'classes of cum_samples')
        labels = indices(labels, 'labels')
        legal = check_labels(labels, self.num_classes, None, 'labels')
        next_cum_samples = count_samples(cum_samples, labels, legal)
        loss = seesaw_loss(cls_score, labels, next_cum_samples, weight, self.p, self.q, self.eps)
        return self.loss_weight * reduce_loss(loss, reduction, avg_factor, eps=0.0), next_cum_samples


def _sizes(loss: PretrainSeesawLoss) -> Mapping[str, int]:
    """The counts determine the number of classes."""
    return {'C': loss.num_classes}


PretrainSeesawLoss.spec = LossSpec(
    functions=(seesaw_loss,),
    calls=(
        Call(
            'labels',
            (
                Input('cls_score', Role.LOGITS, 'N C', differentiable=True),
                Input('labels', Role.LABELS, 'N', classes='C'),
                Input('weight', Role.WEIGHTS, 'N', optional=True),
                AVG_FACTOR,
                Input('cum_samples', Role.TALLIES, 'C', state=True),
            ),
            method='step',
        ),
    ),
    variants={
        'default': {},
        'sum': {'num_classes': 6, 'p': 0.5, 'q': 1.0, 'eps': 0.2, 'reduction': 'sum', 'loss_weight': 0.5},
        'mitigation': {'num_classes': 7, 'q': 0.0},
        'compensation': {'num_classes': 7, 'p': 0.0},
        'none': {'num_classes': 6, 'reduction': 'none'},
    },
    sizes=_sizes,
    references=('https://arxiv.org/abs/2008.10032',),
    stands_in_for=(HostClass('mmpretrain.SeesawLoss'),),
    differences=(
        Difference(
            'mmpretrain.SeesawLoss',
            'samples are counted in training mode only; mmpretrain counts in evaluation too',
            'a validation loss must not change what is trained',
            'tests/openmmlab/test_mmdet.py',
        ),
    ),
)
