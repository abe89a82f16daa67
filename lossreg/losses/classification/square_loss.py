"""Square loss of scores against signs."""

from typing import ClassVar

from torch import Tensor, nn

from lossreg.ops.pairs import signed_scores
from lossreg.ops.reductions import reduce_loss
from lossreg.options import check_reduction
from lossreg.registry import LOSSES
from lossreg.spec import Call, Input, LossSpec, Role


def square_loss(input: Tensor, target: Tensor) -> Tensor:
    r"""Square loss of each score.

    .. math::
        \ell = (1 - t\,s)^2

    Args:
        input: scores s, of any shape.
        target: signs t, -1 or 1, of the same shape.

    Returns:
        The losses, of the shape of ``input``.

    Raises:
        ValueError: shapes do not match.
    """
    # (1 - t s)^2
    miss = 1.0 - signed_scores(input, target)
    return miss * miss


@LOSSES.register_module()
class SquareLoss(nn.Module):
    """Binary classification: square loss, as in least-squares classification.

    See :func:`square_loss` for the formula.

    Args:
        reduction: ``none``, ``mean`` (over all elements) or ``sum``.

    Shapes:
        Scores and signs of the same shape. Returns a scalar, or that shape with reduction ``none``. An empty batch
        gives 0.

    Raises:
        ValueError: unknown ``reduction``, shapes do not match.

    Reference:
        Suykens and Vandewalle, Least Squares Support Vector Machine Classifiers, 1999.
    """

    spec: ClassVar[LossSpec]

    def __init__(self, reduction: str = 'mean') -> None:
        super().__init__()
        check_reduction(reduction)
        self.reduction = reduction

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        """Computes the loss of scores and their signs."""
        return reduce_loss(square_loss(input, target), self.reduction, None)


def _call(name: str, shape: str) -> Call:
    """A call with scores of the given shape."""
    return Call(name, (Input('input', Role.LOGITS, shape, differentiable=True), Input('target', Role.SIGNS, shape)))


SquareLoss.spec = LossSpec(
    functions=(square_loss,),
    calls=(_call('scores', 'N'), _call('multilabel', 'N C')),
    variants={'default': {}, 'sum': {'reduction': 'sum'}, 'none': {'reduction': 'none'}},
    references=('https://doi.org/10.1023/A:1018628609742',),
)
