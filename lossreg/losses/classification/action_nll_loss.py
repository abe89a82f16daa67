"""Negative log-likelihood, called as in mmaction."""

from typing import ClassVar

from torch import Tensor, nn

from lossreg.ops.cross_entropy import reduce_by_share, torch_label_losses
from lossreg.registry import LOSSES
from lossreg.spec import Call, HostClass, Input, LossSpec, Role


def action_nll_loss(cls_score: Tensor, label: Tensor) -> Tensor:
    r"""Mean negative log-likelihood of the samples that are not ignored.

    .. math::
        \ell = -\operatorname{mean}_{i: y_i \ne -100} x_{i y_i}

    Args:
        cls_score: log-probabilities x, (N, C) or (N, C, d1, ..., dk).
        label: y, integers in [0, C) or -100, (N) or (N, d1, ..., dk).

    Returns:
        A scalar; 0 where nothing counts.

    Raises:
        ValueError: shapes do not match.
        IndexError: a label out of range (eager on the CPU; elsewhere NaN).
    """
    loss, share = torch_label_losses(cls_score, label, None, -100, 0.0, True, 'cls_score', 'label')
    return reduce_by_share(loss, share, 'mean')


@LOSSES.register_module()
class ActionNLLLoss(nn.Module):
    """Video classification: negative log-likelihood, given log-probabilities.

    Drop-in replacement for ``mmaction.NLLLoss`` (same call and numbers); see :func:`action_nll_loss` for the formula.

    Args:
        loss_weight: factor of the result.

    Shapes:
        Log-probabilities (N, C), labels (N); further dimensions follow C. Returns a scalar. An empty batch, or
        everything ignored, gives 0.

    Raises:
        ValueError: shapes do not match.
        IndexError: a label out of range, in eager mode on the CPU; NaN elsewhere.

    Reference:
        mmaction2 1.2, ``NLLLoss``.
    """

    spec: ClassVar[LossSpec]

    def __init__(self, loss_weight: float = 1.0) -> None:
        super().__init__()
        self.loss_weight = float(loss_weight)

    def forward(self, cls_score: Tensor, label: Tensor) -> Tensor:
        """Computes the loss of log-probabilities and class indices."""
        return self.loss_weight * action_nll_loss(cls_score, label)


ActionNLLLoss.spec = LossSpec(
    functions=(action_nll_loss,),
    calls=(
        Call(
            'labels',
            (
                Input('cls_score', Role.LOG_PROBABILITIES, 'N C', differentiable=True),
                Input('label', Role.LABELS, 'N', classes='C', ignore=lambda loss: -100),
            ),
        ),
    ),
    variants={'default': {}, 'weighted': {'loss_weight': 0.5}},
    references=('https://mmaction2.readthedocs.io/en/latest/api.html#losses',),
    stands_in_for=(HostClass('mmaction.NLLLoss'),),
)
