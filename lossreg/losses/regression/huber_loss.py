"""Huber loss."""

from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from lossreg.arith import check_same_shape, upcast_alike
from lossreg.ops.reductions import reduce_loss
from lossreg.options import check_reduction
from lossreg.registry import LOSSES
from lossreg.spec import HostClass, LossSpec
from lossreg.spec_parts.differences import no_broadcast
from lossreg.spec_parts.torch_nn import torch_calls


def huber_loss(input: Tensor, target: Tensor, delta: float = 1.0) -> Tensor:
    r"""Huber loss of each element.

    .. math::
        \ell = \begin{cases} d^2 / 2 & d \le \delta \\ \delta\,(d - \delta / 2) & \text{elsewhere} \end{cases}, \qquad
        d = |x - t|

    Args:
        input: predictions x, of any shape.
        target: targets t, of the same shape.
        delta: where the quadratic part ends, > 0.

    Returns:
        The losses, of the shape of ``input``.

    Raises:
        ValueError: shapes do not match.

    Example:
        >>> huber_loss(torch.tensor([1.0, 3.0]), torch.zeros(2), delta=2.0)  # 1/2, and 2 (3 - 1)
        tensor([0.5000, 4.0000])
    """
    check_same_shape(target, input, 'target', 'input')
    # torch's kernel is ten times faster than the formula written out
    x, t = upcast_alike(input, target)
    return F.huber_loss(x, t, reduction='none', delta=delta)


@LOSSES.register_module()
class HuberLoss(nn.Module):
    """Robust regression: squared error near 0, absolute error beyond.

    Drop-in replacement for ``torch.nn.HuberLoss`` (same call and numbers); see :func:`huber_loss` for the formula.

    Args:
        reduction: ``none``, ``mean`` (over all elements) or ``sum``.
        delta: where the quadratic part ends, > 0.

    Shapes:
        Inputs and targets of the same shape. Returns a scalar, or that shape with reduction ``none``; 0 for an empty
        batch.

    Raises:
        ValueError: ``delta`` is not above 0, shapes do not match.

    Reference:
        Huber, Robust Estimation of a Location Parameter, 1964.
    """

    spec: ClassVar[LossSpec]

    def __init__(self, reduction: str = 'mean', delta: float = 1.0) -> None:
        super().__init__()
        check_reduction(reduction)
        if delta <= 0:
            raise ValueError(f'delta must be above 0, got {delta}')
        self.reduction = reduction
        self.delta = float(delta)

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        """Computes the loss."""
        return reduce_loss(huber_loss(input, target, self.delta), self.reduction, None)


HuberLoss.spec = LossSpec(
    functions=(huber_loss,),
    calls=torch_calls(),
    variants={
        'default': {},
        'narrow': {'delta': 0.01},
        'sum': {'reduction': 'sum', 'delta': 3.0},
        'none': {'reduction': 'none'},
    },
    references=('https://pytorch.org/docs/stable/generated/torch.nn.HuberLoss.html',),
    stands_in_for=(HostClass('torch.HuberLoss'),),
    differences=(no_broadcast('torch.HuberLoss', 'tests/test_differences.py'),),
)
