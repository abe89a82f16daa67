"""L2 penalty of a tensor, such as a layer's weights."""

from typing import ClassVar

from torch import Tensor, nn

from lossreg.arith import upcast
from lossreg.ops.reductions import reduce_loss
from lossreg.options import check_reduction
from lossreg.registry import LOSSES
from lossreg.spec import LossSpec
from lossreg.spec_parts.classifiers import PENALTY_CALLS


def l2_penalty(input: Tensor) -> Tensor:
    r"""L2 penalty of each element.

    .. math::
        \ell = x^2

    Args:
        input: numbers x, of any shape.

    Returns:
        The penalties, of the same shape.

    Example:
        >>> l2_penalty(torch.tensor([3.0, -4.0]))
        tensor([ 9., 16.])
    """
    x = upcast(input)
    return x * x


@LOSSES.register_module()
class L2Penalty(nn.Module):
    """Penalty on weights: the sum of squares, not halved (ridge regression).

    See :func:`l2_penalty` for the formula.

    Args:
        loss_weight: factor of the result.
        reduction: ``none``, ``mean`` (over all numbers) or ``sum``.

    Shapes:
        Any shape. Returns a scalar, or that shape with reduction ``none``. An empty tensor gives 0.

    Raises:
        ValueError: unknown ``reduction``.

    Reference:
        Hoerl and Kennard, Ridge Regression: Biased Estimation for Nonorthogonal Problems, Technometrics 12, 1970.
    """

    spec: ClassVar[LossSpec]

    def __init__(self, loss_weight: float = 1.0, reduction: str = 'sum') -> None:
        super().__init__()
        check_reduction(reduction)
        self.loss_weight = float(loss_weight)
        self.reduction = reduction

    def forward(self, input: Tensor) -> Tensor:
        """Computes the penalty of a tensor."""
        return self.loss_weight * reduce_loss(l2_penalty(input), self.reduction, None)


L2Penalty.spec = LossSpec(
    functions=(l2_penalty,),
    calls=PENALTY_CALLS,
    variants={
        'default': {},
        'mean': {'reduction': 'mean', 'loss_weight': 0.01},
        'none': {'reduction': 'none', 'loss_weight': 2.0},
    },
    references=('https://doi.org/10.1080/00401706.1970.10488634',),
)
