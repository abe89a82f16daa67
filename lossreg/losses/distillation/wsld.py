"""Weighted soft labels."""

from typing import ClassVar

import torch
from torch import Tensor, nn

from lossreg.arith import check_same_shape, check_size, keep, poison, upcast
from lossreg.ops.cross_entropy import own_class
from lossreg.ops.divergences import log_softmax
from lossreg.ops.reductions import average_over, total
from lossreg.options import check_positive
from lossreg.registry import LOSSES
from lossreg.spec import HostClass, Input, LossSpec, Role
from lossreg.spec_parts.differences import no_broadcast
from lossreg.spec_parts.distillation import distillation_calls


def wsld(student: Tensor, teacher: Tensor, gt_labels: Tensor, tau: float = 1.0) -> Tensor:
    r"""Cross-entropy of the student against the teacher, weighted by how much worse the student predicts the label.

    .. math::
        \ell_n = -\tau^2 w_n \sum_k t_{nk} \log s_{nk}, \qquad
        w_n = 1 - \exp\left(-\frac{\log p^S_{n y_n}}{\log p^T_{n y_n} - 10^{-7}}\right)

    with :math:`s, t = \mathrm{softmax}(x / \tau)` and :math:`p = \mathrm{softmax}(x)`. The weight has no gradient.

    Args:
        student: the student's logits, (N, C).
        teacher: the teacher's, of the same shape.
        gt_labels: y, integers in [0, C), (N).
        tau: temperature, > 0.

    Returns:
        (N).

    Raises:
        ValueError: shapes do not match.
        IndexError: a label out of range (eager on the CPU; elsewhere that sample's loss is NaN).
    """
    check_same_shape(student, teacher, 'student', 'teacher')
    own, legal = own_class(gt_labels, student, 'student')
    s, t = upcast(student), upcast(teacher)
    log_s, log_t = log_softmax(s, tau), log_softmax(t, tau)
    target = log_t.exp()
    # NaN in one logit makes its whole sample NaN, so it is not lost where the target is 0
    cross_entropy = -(target * keep(log_s, target != 0)).sum(1)
    nll_s = -keep(log_softmax(s.detach(), 1.0), own).sum(1)
    nll_t = -keep(log_softmax(t.detach(), 1.0), own).sum(1)
    # 1 - exp(-nll_s / (nll_t + 1e-7))
    weight = 1.0 - torch.exp(-nll_s / (nll_t + 1e-7))
    return poison(tau * tau * weight * cross_entropy, legal)


@LOSSES.register_module()
class WSLD(nn.Module):
    """Distillation of logits, with more weight on samples that the student predicts worse than the teacher.

    Drop-in replacement for ``mmrazor.WSLD`` (same call and numbers); see :func:`wsld` for the formula.

    Args:
        tau: temperature, > 0.
        loss_weight: factor of the result.
        num_classes: C.

    Shapes:
        Logits (N, C) of student and teacher, labels (N). Returns the mean over the batch; an empty one gives 0.

    Raises:
        ValueError: ``tau`` is not above 0, shapes do not match, or the logits do not have ``num_classes`` classes.
        IndexError: a label out of range, in eager mode on the CPU; NaN elsewhere.

    Reference:
        Zhou et al., Rethinking Soft Labels for Knowledge Distillation: A Bias-Variance Tradeoff Perspective, ICLR 2021.
    """

    spec: ClassVar[LossSpec]

    def __init__(self, tau: float = 1.0, loss_weight: float = 1.0, num_classes: int = 1000) -> None:
        super().__init__()
        check_positive(tau, 'tau')
        self.tau = float(tau)
        self.loss_weight = float(loss_weight)
        self.num_classes = num_classes

    def forward(self, student: Tensor, teacher: Tensor, gt_labels: Tensor) -> Tensor:
        """Computes the loss of a student's logits against its teacher's, and the labels."""
        loss = wsld(student, teacher, gt_labels, self.tau)
        check_size(student, 1, self.num_classes, 'student', 'classes')
        return self.loss_weight * average_over(total(loss), loss.numel())


WSLD.spec = LossSpec(
    functions=(wsld,),
    calls=distillation_calls(
        {'vectors': 'N C'},
        names=('student', 'teacher'),
        more=(Input('gt_labels', Role.LABELS, 'N', classes='C'),),
    ),
    variants={
        'default': {},
        'in1k': {'tau': 2, 'loss_weight': 2.5, 'num_classes': 1000},
        'few': {'num_classes': 5},
        'cold': {'num_classes': 7, 'tau': 0.5},
    },
    sizes=lambda loss: {'C': loss.num_classes},
    references=('https://arxiv.org/abs/2102.00650',),
    stands_in_for=(HostClass('mmrazor.WSLD'),),
    differences=(no_broadcast('mmrazor.WSLD', 'tests/openmmlab/test_mmrazor.py'),),
)
