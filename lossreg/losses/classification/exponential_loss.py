"""Exponential loss of scores against signs."""

from typing import ClassVar

from torch import Tensor, nn

from lossreg.ops.pairs import signed_scores
from lossreg.ops.reductions import reduce_loss
from lossreg.options import check_reduction
from lossreg.registry import LOSSES
from lossreg.spec import Call, Input, LossSpec, Role


def exponential_loss(input: Tensor, target: Tensor) -> Tensor:
    r"""Exponential loss of each score.

    .. math::
        \ell = \exp(-t\,s)

    Args:
        input: scores s, of any shape. On the wrong side, float32 overflows to infinity beyond 88.
        target: signs t, -1 or 1, of the same shape.

    Returns:
        The losses, of the shape of ``input``.

    Raises:
        ValueError: shapes do not match.
    """
    # exp(-t s)
    return (-signed_scores(input, target)).exp()


@LOSSES.register_module()
class ExponentialLoss(nn.Module):
    """Binary classification: exponential loss, as minimised by AdaBoost.

    See :func:`exponential_loss` for the formula.

    Args:
        reduction: ``none``, ``mean`` (over all elements) or ``sum``.

    Shapes:
        Scores and signs of the same shape. Returns a scalar, or that shape with reduction ``none``. An empty batch
        gives 0.

    Raises:
        ValueError: unknown ``reduction``, shapes do not match.

    Reference:
        Freund and Schapire, A Decision-Theoretic Generalization of On-Line Learning, JCSS 55, 1997.
    """

    spec: ClassVar[LossSpec]

    def __init__(self, reduction: str = 'mean') -> None:
        super().__init__()
        check_reduction(reduction)
        self.reduction = reduction

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        """Computes the loss of scores and their signs."""
        return reduce_loss(exponential_loss(input, target), self.reduction, None)


def _call(name: str, shape: str) -> Call:
    """A call with scores of the given shape."""
    return Call(
        name, (Input('input', Role.LOGITS, shape, differentiable=True, limit=80.0), Input('target', Role.SIGNS, shape))
    )


ExponentialLoss.spec = LossSpec(
    functions=(exponential_loss,),
    calls=(_call('scores', 'N'), _call('multilabel', 'N C')),
    variants={'default': {}, 'sum': {'reduction': 'sum'}, 'none': {'reduction': 'none'}},
    references=('https://doi.org/10.1006/jcss.1997.1504',),
)
