"""Decoupled knowledge distillation."""

from typing import ClassVar

import torch
from torch import Tensor, nn

from lossreg.arith import check_same_shape, log_sum_exp, poison, softplus, upcast_alike
from lossreg.ops.cross_entropy import own_class
from lossreg.ops.divergences import check_divergence_reduction, divergence, log_softmax, reduce_divergence
from lossreg.options import check_positive
from lossreg.registry import LOSSES
from lossreg.spec import HostClass, Input, LossSpec, Role
from lossreg.spec_parts.differences import no_broadcast
from lossreg.spec_parts.distillation import distillation_calls


def dkd_loss(
    preds_S: Tensor,
    preds_T: Tensor,
    gt_labels: Tensor,
    tau: float = 1.0,
    alpha: float = 1.0,
    beta: float = 1.0,
) -> Tensor:
    r"""KL divergence of the student from the teacher: the labelled class against the rest, and among the rest.

    .. math::
        \ell_n = \tau^2 \left(\alpha\, \mathrm{KL}(b^T \Vert b^S) + \beta\, \mathrm{KL}(q^T \Vert q^S)\right), \qquad
        b = (p_y,\; 1 - p_y), \quad p = \mathrm{softmax}(x / \tau), \quad
        q = \mathrm{softmax}(x / \tau - 1000\, [k = y])

    As in the authors' code, q leaves the labelled class out by subtracting 1000 from its logit.

    Args:
        preds_S: the student's logits, (N, C).
        preds_T: the teacher's, of the same shape.
        gt_labels: y, integers in [0, C), (N).
        tau: temperature, > 0.
        alpha: weight of the labelled class's part.
        beta: weight of the others' part.

    Returns:
        (N).

    Raises:
        ValueError: shapes do not match.
        IndexError: a label out of range (eager on the CPU; elsewhere that sample's loss is NaN).
    """
    check_same_shape(preds_S, preds_T, 'preds_S', 'preds_T')
    own, legal = own_class(gt_labels, preds_S, 'preds_S')
    s, t = upcast_alike(preds_S, preds_T)
    s, t = s / tau, t / tau
    # log p_y = -softplus(z) and log (1 - p_y) = -softplus(-z), with z = log sum_k!=y exp(x_k) - x_y
    z_s, z_t = _log_odds(s, own), _log_odds(t, own)
    target = divergence(-softplus(z_t), -softplus(z_s)) + divergence(-softplus(-z_t), -softplus(-z_s))
    log_q_s, log_q_t = log_softmax(_without(s, own), 1.0), log_softmax(_without(t, own), 1.0)
    others = divergence(log_q_t, log_q_s).sum(1)
    return poison(tau * tau * (alpha * target + beta * others), legal)


def _log_odds(x: Tensor, own: Tensor) -> Tensor:
    """The log-odds against the labelled class, (N)."""
    # -1e30, not -inf: with a single class nothing else is left, and the gradient would be NaN
    largest, rest = log_sum_exp(torch.where(own, -1e30, x))
    return rest + (largest - torch.where(own, x, 0.0).sum(1))


def _without(x: Tensor, own: Tensor) -> Tensor:
    return torch.where(own, x - 1000.0, x)


@LOSSES.register_module()
class DKDLoss(nn.Module):
    """Distillation of logits, with separate weights for the labelled class and for the other classes.

    Drop-in replacement for ``mmrazor.DKDLoss`` (same call and numbers); see :func:`dkd_loss` for the formula.

    Args:
        tau: temperature, > 0.
        alpha: weight of the labelled class's part.
        beta: weight of the others' part.
        reduction: ``batchmean``, the sum over the batch size, as in the paper. ``none``, ``mean`` and ``sum`` all mean
            the sum, as in mmrazor, which also passes ``size_average=False`` to torch.
        loss_weight: factor of the result.

    Shapes:
        Logits (N, C) of student and teacher, labels (N). Returns a scalar; an empty batch gives 0.

    Raises:
        ValueError: ``tau`` is not above 0, unknown ``reduction``, shapes do not match.
        IndexError: a label out of range, in eager mode on the CPU; NaN elsewhere.

    Reference:
        Zhao et al., Decoupled Knowledge Distillation, CVPR 2022.
    """

    spec: ClassVar[LossSpec]

    def __init__(
        self,
        tau: float = 1.0,
        alpha: float = 1.0,
        beta: float = 1.0,
        reduction: str = 'batchmean',
        loss_weight: float = 1.0,
    ) -> None:
        super().__init__()
        check_positive(tau, 'tau')
        check_divergence_reduction(reduction)
        self.tau = float(tau)
        self.alpha = float(alpha)
        self.beta = float(beta)
        self.reduction = reduction
        self.loss_weight = float(loss_weight)

    def forward(self, preds_S: Tensor, preds_T: Tensor, gt_labels: Tensor) -> Tensor:
        """Computes the loss of a student's logits against its teacher's, and the labels."""
        loss = dkd_loss(preds_S, preds_T, gt_labels, self.tau, self.alpha, self.beta)
        return self.loss_weight * reduce_divergence(loss, self.reduction if self.reduction == 'batchmean' else 'sum')


DKDLoss.spec = LossSpec(
    functions=(dkd_loss,),
    calls=distillation_calls({'vectors': 'N C'}, more=(Input('gt_labels', Role.LABELS, 'N', classes='C'),)),
    variants={
        'default': {},
        'in1k': {'tau': 1, 'beta': 0.5, 'loss_weight': 1, 'reduction': 'mean'},
        'hot': {'tau': 4.0, 'alpha': 1.0, 'beta': 8.0, 'loss_weight': 0.5},
        'target_only': {'beta': 0.0, 'reduction': 'none'},
    },
    references=('https://arxiv.org/abs/2203.08679',),
    stands_in_for=(HostClass('mmrazor.DKDLoss'),),
    differences=(no_broadcast('mmrazor.DKDLoss', 'tests/openmmlab/test_mmrazor.py'),),
)
