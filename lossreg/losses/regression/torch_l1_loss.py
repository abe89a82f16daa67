"""L1 loss, called as in torch."""

from typing import ClassVar, Optional

from torch import Tensor, nn

from lossreg.arith import check_same_shape
from lossreg.losses.regression.l1_loss import l1_loss
from lossreg.ops.reductions import reduce_loss
from lossreg.options import legacy_reduction
from lossreg.registry import LOSSES
from lossreg.spec import HostClass, LossSpec
from lossreg.spec_parts.differences import no_broadcast
from lossreg.spec_parts.torch_nn import torch_calls


@LOSSES.register_module()
class TorchL1Loss(nn.Module):
    """Regression: absolute error.

    Drop-in replacement for ``torch.nn.L1Loss`` (same call and numbers); see :func:`l1_loss` for the formula.

    Args:
        size_average: deprecated; False means ``reduction='sum'``.
        reduce: deprecated; False means ``reduction='none'``.
        reduction: ``none``, ``mean`` (over all elements) or ``sum``.

    Shapes:
        Inputs and targets of the same shape. Returns a scalar, or that shape with reduction ``none``; 0 for an empty
        batch.

    Raises:
        ValueError: shapes do not match.

    Reference:
        torch.nn.L1Loss.
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
        check_same_shape(target, input, 'target', 'input')
        return reduce_loss(l1_loss(input, target), self.reduction, None)


TorchL1Loss.spec = LossSpec(
    functions=(l1_loss,),
    calls=torch_calls(),
    variants={
        'default': {},
        'sum': {'reduction': 'sum'},
        'deprecated': {'size_average': False, 'reduce': True},
        'none': {'reduction': 'none'},
    },
    references=('https://pytorch.org/docs/stable/generated/torch.nn.L1Loss.html',),
    stands_in_for=(HostClass('torch.L1Loss'),),
    differences=(no_broadcast('torch.L1Loss', 'tests/test_differences.py'),),
)
