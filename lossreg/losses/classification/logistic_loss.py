"""Logistic loss of scores against signs."""

from typing import ClassVar

from torch import Tensor, nn

from lossreg.arith import softplus
from lossreg.ops.pairs import signed_scores
from lossreg.ops.reductions import reduce_loss
from lossreg.options import check_reduction
from lossreg.registry import LOSSES
from lossreg.spec import Call, Input, LossSpec, Role


def logistic_loss(input: Tensor, target: Tensor) -> Tensor:
    r"""Logistic loss of each score.

    .. math::
        \ell = \log(1 + \exp(-t\,s))

    Args:
        input: scores s, of any shape.
        target: signs t, -1 or 1, of the same shape.

    Returns:
        The losses, of the shape of ``input``.

    Raises:
        ValueError: shapes do not match.
    """
    # log(1 + exp(-t s))
    return softplus(-signed_scores(input, target))


@LOSSES.register_module()
class LogisticLoss(nn.Module):
    """Binary classification: logistic loss, as in logistic regression.

    See :func:`logistic_loss` for the formula.

    Args:
        reduction: ``none``, ``mean`` (over all elements) or ``sum``.

    Shapes:
        Scores and signs of the same shape. Returns a scalar, or that shape with reduction ``none``. An empty batch
        gives 0.

    Raises:
        ValueError: unknown ``reduction``, shapes do not match.

    Reference:
        Cox, The Regression Analysis of Binary Sequences, Journal of the Royal Statistical Society B 20, 1958.
    """

    spec: ClassVar[LossSpec]

    def __init__(self, reduction: str = 'mean') -> None:
        super().__init__()
        check_reduction(reduction)
        self.reduction = reduction

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        """Computes the loss of scores and their signs."""
        return reduce_loss(logistic_loss(input, target), self.reduction, None)


def _call(name: str, shape: str) -> Call:
    """A call with scores of the given shape."""
    return Call(name, (Input('input', Role.LOGITS, shape, differentiable=True), Input('target', Role.SIGNS, shape)))


LogisticLoss.spec = LossSpec(
    functions=(logistic_loss,),
    calls=(_call('scores', 'N'), _call('multilabel', 'N C')),
    variants={'default': {}, 'sum': {'reduction': 'sum'}, 'none': {'reduction': 'none'}},
    references=('https://doi.org/10.1111/j.2517-6161.1958.tb00292.x',),
)
