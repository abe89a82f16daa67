"""DIST: correlations of a student's predictions with its teacher's."""

from typing import ClassVar

import torch
from torch import Tensor, nn

from lossreg.arith import check_at_least, check_dim, check_same_shape, keep, root, upcast
from lossreg.ops.reductions import average_over, total
from lossreg.options import check_positive
from lossreg.registry import LOSSES
from lossreg.spec import HostClass, LossSpec
from lossreg.spec_parts.differences import no_broadcast
from lossreg.spec_parts.distillation import distillation_calls


def dist_loss(
    logits_S: Tensor,
    logits_T: Tensor,
    inter_loss_weight: float = 1.0,
    intra_loss_weight: float = 1.0,
    tau: float = 1.0,
) -> Tensor:
    r"""One minus the correlation between the two predictions, over classes and over samples.

    .. math::
        \ell = \tau^2 \left(\frac{w_1}{N} \sum_n (1 - \rho(s_{n \cdot}, t_{n \cdot})) +
            \frac{w_2}{C} \sum_k (1 - \rho(s_{\cdot k}, t_{\cdot k}))\right), \qquad
        \rho(a, b) = \frac{(a - \bar a) \cdot (b - \bar b)}
            {\lVert a - \bar a \rVert \lVert b - \bar b \rVert + 10^{-8}}

    with :math:`s = \mathrm{softmax}(x_S / \tau)` and t alike. Computed in float64, because the loss depends on small
    differences of nearly equal predictions.

    Args:
        logits_S: the student's logits, (N, C).
        logits_T: the teacher's, of the same shape.
        inter_loss_weight: w_1.
        intra_loss_weight: w_2.
        tau: temperature, > 0.

    Returns:
        A scalar.

    Raises:
        ValueError: shapes do not match.
    """
    check_dim(logits_S, 2, 'logits_S')
    check_same_shape(logits_S, logits_T, 'logits_S', 'logits_T')
    check_at_least(logits_S, 1, 1, 'logits_S', 'a distribution over classes')
    s, t = torch.softmax(logits_S.double() / tau, dim=1), torch.softmax(logits_T.double() / tau, dim=1)
    of_samples, of_classes = 1.0 - correlation(s, t, 1), 1.0 - correlation(s, t, 0)
    # an empty batch still has classes, but nothing to correlate
    of_classes = keep(of_classes, torch.zeros_like(of_classes) + s.size(0) > 0)
    inter = average_over(total(of_samples), of_samples.numel())
    intra = average_over(total(of_classes), of_classes.numel())
    loss = tau * tau * (inter_loss_weight * inter + intra_loss_weight * intra)
    return loss.to(upcast(logits_S).dtype)


def correlation(a: Tensor, b: Tensor, dim: int, eps: float = 1e-8) -> Tensor:
    """Pearson's correlation of a and b along one dimension; 0 where one of them is constant."""
    a = a - average_over(a.sum(dim, keepdim=True), a.size(dim))
    b = b - average_over(b.sum(dim, keepdim=True), b.size(dim))
    lengths = root((a * a).sum(dim)) * root((b * b).sum(dim))
    # in units of eps, because the exporter drops the addition of so small a number
    return (a * b).sum(dim) / eps / (lengths / eps + 1.0)


@LOSSES.register_module()
class DISTLoss(nn.Module):
    """Distillation from stronger teachers: predictions should correlate, over classes and over samples.

    Drop-in replacement for ``mmrazor.DISTLoss`` (same call and numbers); see :func:`dist_loss` for the formula.

    Args:
        inter_loss_weight: weight of the correlations over the classes, one per sample.
        intra_loss_weight: weight of the correlations over the samples, one per class.
        tau: temperature, > 0.
        loss_weight: factor of the result.
        teacher_detach: whether the teacher gets no gradient.

    Shapes:
        Logits (N, C) of student and teacher. Returns a scalar; an empty batch gives 0. A single sample has no
        correlation over samples, so each class contributes 1.

    Raises:
        ValueError: ``tau`` is not above 0, shapes do not match.

    Reference:
        Huang et al., Knowledge Distillation from A Stronger Teacher, NeurIPS 2022.
    """

    spec: ClassVar[LossSpec]

    def __init__(
        self,
        inter_loss_weight: float = 1.0,
        intra_loss_weight: float = 1.0,
        tau: float = 1.0,
        loss_weight: float = 1.0,
        teacher_detach: bool = True,
    ) -> None:
        super().__init__()
        check_positive(tau, 'tau')
        self.inter_loss_weight = float(inter_loss_weight)
        self.intra_loss_weight = float(intra_loss_weight)
        self.tau = float(tau)
        self.loss_weight = float(loss_weight)
        self.teacher_detach = teacher_detach

    def forward(self, logits_S: Tensor, logits_T: Tensor) -> Tensor:
        """Computes the loss of a student's logits against its teacher's."""
        if self.teacher_detach:
            logits_T = logits_T.detach()
        loss = dist_loss(logits_S, logits_T, self.inter_loss_weight, self.intra_loss_weight, self.tau)
        return self.loss_weight * loss


_NAMES = ('logits_S', 'logits_T')

DISTLoss.spec = LossSpec(
    functions=(dist_loss,),
    calls=(
        *distillation_calls({'vectors': 'N C'}, names=_NAMES, when=lambda loss: loss.teacher_detach),
        *distillation_calls({'both': 'N C'}, names=_NAMES, when=lambda loss: not loss.teacher_detach, both=True),
    ),
    variants={
        'default': {},
        'in1k': {'inter_loss_weight': 1.0, 'intra_loss_weight': 1.0, 'tau': 1, 'loss_weight': 2},
        'hot': {'tau': 4.0, 'inter_loss_weight': 2.0, 'intra_loss_weight': 0.5},
        'data_free': {'teacher_detach': False, 'loss_weight': -1.0},
    },
    references=('https://arxiv.org/abs/2205.10536',),
    stands_in_for=(HostClass('mmrazor.DISTLoss'),),
    differences=(no_broadcast('mmrazor.DISTLoss', 'tests/openmmlab/test_mmrazor.py'),),
)
