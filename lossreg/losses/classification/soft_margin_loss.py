"""Soft margin loss for two classes."""

from typing import ClassVar, Optional

from torch import Tensor, nn

from lossreg.arith import check_same_shape, softplus, upcast
from lossreg.ops.reductions import reduce_loss
from lossreg.options import legacy_reduction
from lossreg.registry import LOSSES
from lossreg.spec import HostClass, LossSpec, Role
from lossreg.spec_parts.differences import no_broadcast
from lossreg.spec_parts.torch_nn import torch_calls


def soft_margin_loss(input: Tensor, target: Tensor) -> Tensor:
    r"""Logistic loss of each element.

    .. math::
        \ell = \log(1 + e^{-t x})

    Args:
        input: logits x, of any shape.
        target: t, -1 or 1, of the same shape.

    Returns:
        The losses, of the shape of ``input``.

    Raises:
        ValueError: shapes do not match.
    """
    check_same_shape(target, input, 'target', 'input')
    # log(1 + exp(-t x))
    return softplus(-upcast(target) * upcast(input))


@LOSSES.register_module()
class SoftMarginLoss(nn.Module):
    """Binary classification with labels -1 and 1: logistic loss.

    Drop-in replacement for ``torch.nn.SoftMarginLoss`` (same call and numbers); see :func:`soft_margin_loss` for the
    formula.

    Args:
        size_average: deprecated; False means ``reduction='sum'``.
        reduce: deprecated; False means ``reduction='none'``.
        reduction: ``none``, ``mean`` (over all elements) or ``sum``.

    Shapes:
        Inputs and targets of the same shape. Returns a scalar, or that shape with reduction ``none``; 0 for an empty
        batch. It is finite at any finite logit; torch's overflows beyond -88.

    Raises:
        ValueError: shapes do not match.

    Reference:
        torch.nn.SoftMarginLoss.
    """

    spec: ClassVar[LossSpec]

    def __init__(
        self, size_average: Optional[bool] = None, reduce: Optional[bool] = None, reduction: str = 'mean'
    ) -> None:
        super().__init__()
        self.size_average = size_average
        self.reduce = reduce
        self.reduction = legacy_reduction(size_average, reduce, reduction)

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        """Computes the loss."""
        return reduce_loss(soft_margin_loss(input, target), self.reduction, None)


SoftMarginLoss.spec = LossSpec(
    functions=(soft_margin_loss,),
    calls=torch_calls(target=Role.SIGNS),
    variants={
        'default': {},
        'sum': {'reduction': 'sum'},
        'deprecated': {'size_average': False, 'reduce': True},
        'none': {'reduction': 'none'},
    },
    references=('https://pytorch.org/docs/stable/generated/torch.nn.SoftMarginLoss.html',),
    stands_in_for=(HostClass('torch.SoftMarginLoss'),),
    differences=(no_broadcast('torch.SoftMarginLoss', 'tests/test_differences.py'),),
)
