"""Divergence of standardised logits."""

from typing import ClassVar

from torch import Tensor, nn

from lossreg.arith import check_dim, check_same_shape, upcast_alike
from lossreg.ops.divergences import divergence_of_logits, reduce_divergence
from lossreg.ops.features import standardised
from lossreg.options import check_positive
from lossreg.registry import LOSSES
from lossreg.spec import LossSpec
from lossreg.spec_parts.distillation import distillation_calls


def logit_standardization_loss(preds_S: Tensor, preds_T: Tensor, tau: float = 2.0) -> Tensor:
    r"""KL divergence of each sample of the student from the teacher, after standardising the logits.

    .. math::
        \ell_n = \tau^2 \sum_k t_{nk} \left(\log t_{nk} - \log s_{nk}\right), \qquad
        s_n, t_n = \mathrm{softmax}(z_n / \tau), \quad z_n = \frac{x_n - \bar x_n}{\sigma(x_n) + 10^{-7}}

    with the standard deviation over C - 1, as in the authors' code. Equal logits are standardised to 0.

    Args:
        preds_S: the student's logits x, (N, C).
        preds_T: the teacher's, of the same shape.
        tau: base temperature, > 0.

    Returns:
        (N).

    Raises:
        ValueError: shapes do not match.
    """
    check_dim(preds_S, 2, 'preds_S')
    check_same_shape(preds_S, preds_T, 'preds_S', 'preds_T')
    s, t = upcast_alike(preds_S, preds_T)
    return divergence_of_logits(standardised(s, [1], 1e-7), standardised(t, [1], 1e-7), tau).sum(1)


@LOSSES.register_module()
class LogitStandardizationLoss(nn.Module):
    """Distillation of standardised logits: only the relations between logits count, not their range.

    See :func:`logit_standardization_loss` for the formula.

    The student need not match the mean and scale of its teacher's logits.

    Args:
        tau: base temperature, > 0.
        loss_weight: factor of the result; the authors take 9.

    Shapes:
        Logits (N, C) of student and teacher, which gets no gradient. Returns the mean over the batch; an empty one
        gives 0.

    Raises:
        ValueError: ``tau`` is not above 0, shapes do not match.

    Reference:
        Sun et al., Logit Standardization in Knowledge Distillation, CVPR 2024.
    """

    spec: ClassVar[LossSpec]

    def __init__(self, tau: float = 2.0, loss_weight: float = 1.0) -> None:
        super().__init__()
        check_positive(tau, 'tau')
        self.tau = float(tau)
        self.loss_weight = float(loss_weight)

    def forward(self, preds_S: Tensor, preds_T: Tensor) -> Tensor:
        """Computes the loss of a student's logits against its teacher's."""
        loss = logit_standardization_loss(preds_S, preds_T.detach(), self.tau)
        return self.loss_weight * reduce_divergence(loss, 'batchmean')


LogitStandardizationLoss.spec = LossSpec(
    functions=(logit_standardization_loss,),
    calls=distillation_calls({'vectors': 'N C'}),
    variants={'default': {}, 'cifar': {'tau': 4, 'loss_weight': 9}},
    references=('https://arxiv.org/abs/2403.01427',),
)
