"""KL divergence between softened predictions of a student and a teacher."""

from typing import ClassVar, Optional

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lossreg.arith import check_dim, check_leading_shape, check_same_shape, keep, upcast
from lossreg.ops.reductions import average_over, reduce_loss
from lossreg.options import check_reduction
from lossreg.registry import LOSSES
from lossreg.spec import Call, HostClass, Input, LossSpec, Role
from lossreg.spec_parts.detectors import AVG_FACTOR, zero_avg_factor
from lossreg.spec_parts.differences import no_broadcast


def knowledge_distillation_kl_div_loss(
    pred: Tensor,
    soft_label: Tensor,
    weight: Optional[Tensor] = None,
    T: float = 10.0,
) -> Tensor:
    r"""KL divergence of each sample, averaged over its classes.

    .. math::
        \ell = w \frac{T^2}{C} \sum_k t_k (\log t_k - \log p_k), \qquad
        p = \mathrm{softmax}(x / T), \quad t = \mathrm{softmax}(y / T)

    with :math:`0 \log 0 = 0`, also where a logit x is -inf.

    Args:
        pred: the student's logits x, (N, C).
        soft_label: the teacher's logits y, (N, C), without gradient.
        weight: w, (N). Where it is 0, NaN does not count.
        T: the temperature.

    Returns:
        The losses, (N).

    Raises:
        ValueError: shapes do not match.
    """
    check_dim(pred, 2, 'pred')
    check_same_shape(soft_label, pred, 'soft_label', 'pred')
    x, y = upcast(pred), upcast(soft_label.detach())
    if weight is not None:
        check_dim(weight, 1, 'weight')
        check_leading_shape(weight, pred, 1, 'weight', 'pred')
        counted, weight = (weight != 0).unsqueeze(1), upcast(weight)
        x, y = keep(x, counted), keep(y, counted)
    log_p, log_t = F.log_softmax(x / T, dim=1), F.log_softmax(y / T, dim=1)
    t = log_t.exp()
    absent = t == 0
    log_t = torch.where(absent, 0.0, log_t)
    log_p = torch.where(absent & (log_p == -torch.inf), 0.0, log_p)
    # T^2 / C sum t (log t - log p)
    loss = average_over((t * (log_t - log_p)).sum(1), pred.size(1)) * (T * T)
    return loss if weight is None else loss * weight


@LOSSES.register_module()
class KnowledgeDistillationKLDivLoss(nn.Module):
    """Distillation of detectors (LD): Kullback-Leibler divergence of softened predictions.

    Drop-in replacement for ``mmdet.KnowledgeDistillationKLDivLoss`` (same call and numbers); see
    :func:`knowledge_distillation_kl_div_loss`.

    Args:
        reduction: ``none``, ``mean`` (over the N samples, or by ``avg_factor``) or ``sum``.
        loss_weight: factor of the result.
        T: the temperature, at least 1.

    Shapes:
        Logits of student and teacher (N, C), weights (N). Returns a scalar, or (N) with reduction ``none``. An empty
        batch, all weights 0 or ``avg_factor=0`` give 0.

    Raises:
        ValueError: ``T`` below 1, shapes do not match, ``avg_factor`` with ``reduction='sum'``.

    Reference:
        Zheng et al., Localization Distillation for Dense Object Detection, CVPR 2022.
    """

    spec: ClassVar[LossSpec]

    def __init__(self, reduction: str = 'mean', loss_weight: float = 1.0, T: float = 10) -> None:
        super().__init__()
        check_reduction(reduction)
        if T < 1:
            raise ValueError(f'T must be at least 1, got {T}')
        self.reduction = reduction
        self.loss_weight = float(loss_weight)
        self.T = float(T)

    def forward(
        self,
        pred: Tensor,
        soft_label: Tensor,
        weight: Optional[Tensor] = None,
        avg_factor: Optional[float] = None,
        reduction_override: Optional[str] = None,
    ) -> Tensor:
        """Computes the loss; ``reduction_override`` replaces the constructor's reduction for this call."""
        reduction = self.reduction if reduction_override is None else reduction_override
        loss = knowledge_distillation_kl_div_loss(pred, soft_label, weight, self.T)
        return self.loss_weight * reduce_loss(loss, reduction, avg_factor)


KnowledgeDistillationKLDivLoss.spec = LossSpec(
    functions=(knowledge_distillation_kl_div_loss,),
    calls=(
        Call(
            'logits',
            (
                Input('pred', Role.LOGITS, 'N C', differentiable=True),
                Input('soft_label', Role.LOGITS, 'N C'),
                Input('weight', Role.WEIGHTS, 'N', optional=True),
                AVG_FACTOR,
            ),
        ),
    ),
    variants={
        'default': {},
        'ld': {'loss_weight': 0.25, 'T': 10},
        'sharp': {'T': 1, 'reduction': 'sum'},
        'none': {'T': 2.5, 'reduction': 'none'},
    },
    references=('https://arxiv.org/abs/2102.12252', 'https://arxiv.org/abs/1503.02531'),
    stands_in_for=(HostClass('mmdet.KnowledgeDistillationKLDivLoss'),),
    differences=(
        zero_avg_factor('mmdet.KnowledgeDistillationKLDivLoss'),
        no_broadcast('mmdet.KnowledgeDistillationKLDivLoss', 'tests/openmmlab/test_mmdet.py'),
    ),
)
