"""Kullback-Leibler divergence of a student's classes from its teacher's."""

from typing import ClassVar

from torch import Tensor, nn

from lossreg.ops.divergences import check_divergence_reduction, divergence_of_logits, reduce_divergence
from lossreg.options import check_positive
from lossreg.registry import LOSSES
from lossreg.spec import HostClass, LossSpec
from lossreg.spec_parts.differences import no_broadcast
from lossreg.spec_parts.distillation import LOGITS_SHAPES, distillation_calls


def kl_divergence(preds_S: Tensor, preds_T: Tensor, tau: float = 1.0) -> Tensor:
    r"""The term of each class in the KL divergence of the student from the teacher, both at the same temperature.

    .. math::
        \ell_k = \tau^2\, t_k \left(\log t_k - \log s_k\right), \qquad
        t = \mathrm{softmax}(x_T / \tau), \quad s = \mathrm{softmax}(x_S / \tau)

    with :math:`0 \log 0 = 0`.

    Args:
        preds_S: the student's logits, (N, C) or (N, C, d1, ..., dk).
        preds_T: the teacher's, of the same shape.
        tau: temperature, > 0.

    Returns:
        The terms, of the shape of ``preds_S``. A single term may be negative; their sum over the classes is not.

    Raises:
        ValueError: shapes do not match.

    Example:
        >>> student, teacher = torch.zeros(1, 2), torch.tensor([[3.0, 1.0]]).log()
        >>> kl_divergence(student, teacher)  # 3/4 log 3/2, and 1/4 log 1/2
        tensor([[ 0.3041, -0.1733]])
    """
    return divergence_of_logits(preds_S, preds_T, tau)


@LOSSES.register_module()
class KLDivergence(nn.Module):
    """Distillation of logits (Hinton et al.): Kullback-Leibler divergence of softened predictions.

    Drop-in replacement for ``mmrazor.KLDivergence`` (same call and numbers); see :func:`kl_divergence` for the formula.

    Args:
        tau: temperature, > 0.
        reduction: ``batchmean`` (the sum over the batch size), ``mean`` (over all elements, which is not the
            divergence), ``sum`` or ``none``.
        loss_weight: factor of the result; negative to train a generator to make student and teacher differ.
        teacher_detach: whether the teacher gets no gradient. Data-free distillation needs False.

    Shapes:
        Student and teacher (N, C), or (N, C, H, W), where ``batchmean`` still divides by N only. Returns a scalar, or
        that shape with reduction ``none``. An empty batch gives 0.

    Raises:
        ValueError: ``tau`` is not above 0, unknown ``reduction``, shapes do not match.

    Reference:
        Hinton et al., Distilling the Knowledge in a Neural Network, 2015.
    """

    spec: ClassVar[LossSpec]

    def __init__(
        self,
        tau: float = 1.0,
        reduction: str = 'batchmean',
        loss_weight: float = 1.0,
        teacher_detach: bool = True,
    ) -> None:
        super().__init__()
        check_positive(tau, 'tau')
        check_divergence_reduction(reduction)
        self.tau = float(tau)
        self.reduction = reduction
        self.loss_weight = float(loss_weight)
        self.teacher_detach = teacher_detach

    def forward(self, preds_S: Tensor, preds_T: Tensor) -> Tensor:
        """Computes the loss of a student's logits against its teacher's."""
        if self.teacher_detach:
            preds_T = preds_T.detach()
        return self.loss_weight * reduce_divergence(kl_divergence(preds_S, preds_T, self.tau), self.reduction)


KLDivergence.spec = LossSpec(
    functions=(kl_divergence,),
    calls=(
        *distillation_calls(LOGITS_SHAPES, when=lambda loss: loss.teacher_detach),
        *distillation_calls(
            {f'both_{name}': shape for name, shape in LOGITS_SHAPES.items()},
            when=lambda loss: not loss.teacher_detach,
            both=True,
        ),
    ),
    variants={
        'default': {},
        'hot': {'tau': 6, 'loss_weight': 10, 'reduction': 'mean'},
        'data_free': {'loss_weight': -2.0, 'reduction': 'mean', 'teacher_detach': False},
        'sum': {'tau': 3, 'loss_weight': 0.3, 'reduction': 'sum'},
        'none': {'reduction': 'none'},
    },
    references=('https://arxiv.org/abs/1503.02531',),
    stands_in_for=(HostClass('mmrazor.KLDivergence'),),
    differences=(no_broadcast('mmrazor.KLDivergence', 'tests/openmmlab/test_mmrazor.py'),),
)
