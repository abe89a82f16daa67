"""Normalised knowledge distillation."""

from typing import ClassVar

import torch
from torch import Tensor, nn

from lossreg.arith import check_same_shape, keep, poison, upcast
from lossreg.ops.cross_entropy import own_class
from lossreg.ops.divergences import log_softmax
from lossreg.ops.reductions import reduce_loss
from lossreg.options import check_positive, check_reduction
from lossreg.registry import LOSSES
from lossreg.spec import Input, LossSpec, Role
from lossreg.spec_parts.distillation import distillation_calls


def nkd_loss(
    preds_S: Tensor,
    preds_T: Tensor,
    gt_labels: Tensor,
    tau: float = 1.0,
    gamma: float = 1.5,
) -> Tensor:
    r"""Cross-entropy of the student against the teacher: at the label, and among the other classes.

    .. math::
        \ell_n = -t_y \log s_y - \gamma\, \tau^2 \sum_{k \ne y} \hat t_k \log \hat s_k, \qquad
        s, t = \mathrm{softmax}(x), \quad
        \hat s, \hat t = \mathrm{softmax}_{k \ne y}(x_k / \tau)

    Args:
        preds_S: the student's logits x, (N, C).
        preds_T: the teacher's, of the same shape.
        gt_labels: y, integers in [0, C), (N).
        tau: temperature of the other classes, > 0.
        gamma: weight of the other classes.

    Returns:
        (N).

    Raises:
        ValueError: shapes do not match.
        IndexError: a label out of range (eager on the CPU; elsewhere that sample's loss is NaN).
    """
    check_same_shape(preds_S, preds_T, 'preds_S', 'preds_T')
    own, legal = own_class(gt_labels, preds_S, 'preds_S')
    s, t = upcast(preds_S), upcast(preds_T)
    # -t_y log s_y
    target = -_expected(log_softmax(t, 1.0), log_softmax(s, 1.0), own)
    # -1e30, not -inf: with a single class nothing else is left, and the gradient would be NaN
    others_t = log_softmax(torch.where(own, -1e30, t), tau)
    others_s = log_softmax(torch.where(own, -1e30, s), tau)
    others = -_expected(others_t, others_s, ~own)
    return poison(target + gamma * (tau * tau) * others, legal)


def _expected(log_t: Tensor, log_s: Tensor, counted: Tensor) -> Tensor:
    """sum t log s over the counted classes, with 0 log 0 = 0."""
    t = keep(log_t, counted).exp()
    return (t * keep(log_s, counted & (t != 0))).sum(1)


@LOSSES.register_module()
class NKDLoss(nn.Module):
    """Distillation of logits, with the classes other than the label normalised separately.

    See :func:`nkd_loss` for the formula.

    Args:
        tau: temperature of the other classes, > 0.
        gamma: weight of the other classes.
        reduction: ``none``, ``mean`` (over samples) or ``sum``.
        loss_weight: factor of the result.

    Shapes:
        Logits (N, C) of student and teacher, which gets no gradient; labels (N). Returns a scalar, or (N) with
        reduction ``none``. An empty batch gives 0.

    Raises:
        ValueError: ``tau`` is not above 0, unknown ``reduction``, shapes do not match.
        IndexError: a label out of range, in eager mode on the CPU; NaN elsewhere.

    Reference:
        Yang et al., From Knowledge Distillation to Self-Knowledge Distillation: A Unified Approach with Normalized Loss
        and Customized Soft Labels, ICCV 2023.
    """

    spec: ClassVar[LossSpec]

    def __init__(self, tau: float = 1.0, gamma: float = 1.5, reduction: str = 'mean', loss_weight: float = 1.0) -> None:
        super().__init__()
        check_positive(tau, 'tau')
        check_reduction(reduction)
        self.tau = float(tau)
        self.gamma = float(gamma)
        self.reduction = reduction
        self.loss_weight = float(loss_weight)

    def forward(self, preds_S: Tensor, preds_T: Tensor, gt_labels: Tensor) -> Tensor:
        """Computes the loss of a student's logits against its teacher's, and the labels."""
        loss = nkd_loss(preds_S, preds_T.detach(), gt_labels, self.tau, self.gamma)
        return self.loss_weight * reduce_loss(loss, self.reduction, None)


NKDLoss.spec = LossSpec(
    functions=(nkd_loss,),
    calls=distillation_calls({'vectors': 'N C'}, more=(Input('gt_labels', Role.LABELS, 'N', classes='C'),)),
    variants={
        'default': {},
        'hot': {'tau': 4, 'gamma': 0.5, 'loss_weight': 2},
        'sum': {'reduction': 'sum'},
        'none': {'reduction': 'none'},
    },
    references=('https://arxiv.org/abs/2303.13005',),
)
