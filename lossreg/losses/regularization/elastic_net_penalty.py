"""Elastic net penalty of a tensor, such as a layer's weights."""

from typing import ClassVar

from torch import Tensor, nn

from lossreg.arith import upcast
from lossreg.ops.reductions import total
from lossreg.registry import LOSSES
from lossreg.spec import LossSpec
from lossreg.spec_parts.classifiers import PENALTY_CALLS


def elastic_net_penalty(input: Tensor, l1: float = 1.0, l2: float = 1.0) -> Tensor:
    r"""Elastic net penalty of a tensor.

    .. math::
        \ell = \lambda_1 \sum |x| + \lambda_2 \sum x^2

    Args:
        input: numbers x, of any shape.
        l1: :math:`\lambda_1`, factor of the absolute values.
        l2: :math:`\lambda_2`, factor of the squares, which are not halved.

    Returns:
        A scalar.

    Example:
        >>> elastic_net_penalty(torch.tensor([3.0, -4.0]))  # 3 + 4 + 9 + 16
        tensor(32.)
    """
    x = upcast(input)
    # l1 sum |x| + l2 sum x^2
    return l1 * total(x.abs()) + l2 * total(x * x)


@LOSSES.register_module()
class ElasticNetPenalty(nn.Module):
    """Penalty on weights: the elastic net, a sum of absolute values and squares.

    See :func:`elastic_net_penalty` for the formula.

    Args:
        l1: factor of the sum of absolute values.
        l2: factor of the sum of squares, which are not halved.
        loss_weight: factor of the result.

    Shapes:
        Any shape. Returns a scalar. An empty tensor gives 0.

    Raises:
        TypeError, ValueError: a factor is not a number.

    Reference:
        Zou and Hastie, Regularization and Variable Selection via the Elastic Net, Journal of the Royal Statistical
        Society B 67, 2005.
    """

    spec: ClassVar[LossSpec]

    def __init__(self, l1: float = 1.0, l2: float = 1.0, loss_weight: float = 1.0) -> None:
        super().__init__()
        self.l1 = float(l1)
        self.l2 = float(l2)
        self.loss_weight = float(loss_weight)

    def forward(self, input: Tensor) -> Tensor:
        """Computes the penalty of a tensor."""
        return self.loss_weight * elastic_net_penalty(input, self.l1, self.l2)


ElasticNetPenalty.spec = LossSpec(
    functions=(elastic_net_penalty,),
    calls=PENALTY_CALLS,
    variants={
        'default': {},
        'lasso': {'l1': 0.5, 'l2': 0.0},
        'weighted': {'l1': 0.3, 'l2': 2.0, 'loss_weight': 0.01},
    },
    references=('https://doi.org/10.1111/j.1467-9868.2005.00503.x',),
)
