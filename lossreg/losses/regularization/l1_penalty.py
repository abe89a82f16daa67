"""L1 penalty of a tensor, such as a layer's weights."""

from typing import ClassVar

from torch import Tensor, nn

from lossreg.arith import upcast
from lossreg.ops.reductions import reduce_loss
from lossreg.options import check_reduction
from lossreg.registry import LOSSES
from lossreg.spec import LossSpec
from lossreg.spec_parts.classifiers import PENALTY_CALLS


def l1_penalty(input: Tensor) -> Tensor:
    r"""L1 penalty of each element.

    .. math::
        \ell = |x|

    Args:
        input: numbers x, of any shape.

    Returns:
        The penalties, of the same shape.
    """
    return upcast(input).abs()


@LOSSES.register_module()
class L1Penalty(nn.Module):
    """Penalty on weights: the sum of absolute values (lasso).

    See :func:`l1_penalty` for the formula.

    Args:
        loss_weight: factor of the result.
        reduction: ``none``, ``mean`` (over all numbers) or ``sum``.

    Shapes:
        Any shape. Returns a scalar, or that shape with reduction ``none``. An empty tensor gives 0.

    Raises:
        ValueError: unknown ``reduction``.

    Reference:
        Tibshirani, Regression Shrinkage and Selection via the Lasso, Journal of the Royal Statistical Society B 58,
        1996.
    """

    spec: ClassVar[LossSpec]

    def __init__(self, loss_weight: float = 1.0, reduction: str = 'sum') -> None:
        super().__init__()
        check_reduction(reduction)
        self.loss_weight = float(loss_weight)
        self.reduction = reduction

    def forward(self, input: Tensor) -> Tensor:
        """Computes the penalty of a tensor."""
        return self.loss_weight * reduce_loss(l1_penalty(input), self.reduction, None)


L1Penalty.spec = LossSpec(
    functions=(l1_penalty,),
    calls=PENALTY_CALLS,
    variants={
        'default': {},
        'mean': {'reduction': 'mean', 'loss_weight': 0.01},
        'none': {'reduction': 'none', 'loss_weight': 2.0},
    },
    references=('https://doi.org/10.1111/j.2517-6161.1996.tb02080.x',),
)
