"""Smooth L1 loss, called as in torch."""

from typing import ClassVar, Optional

from torch import Tensor, nn

from lossreg.arith import check_same_shape
from lossreg.losses.regression.smooth_l1_loss import smooth_l1_loss
from lossreg.ops.reductions import reduce_loss
from lossreg.options import check_not_negative, legacy_reduction
from lossreg.registry import LOSSES
from lossreg.spec import HostClass, LossSpec
from lossreg.spec_parts.differences import no_broadcast
from lossreg.spec_parts.torch_nn import torch_calls


@LOSSES.register_module()
class TorchSmoothL1Loss(nn.Module):
    """Robust regression: squared error near 0, absolute error beyond.

    Drop-in replacement for ``torch.nn.SmoothL1Loss`` (same call and numbers); see :func:`smooth_l1_loss` for the
    formula.

    Args:
        size_average: deprecated; False means ``reduction='sum'``.
        reduce: deprecated; False means ``reduction='none'``.
        reduction: ``none``, ``mean`` (over all elements) or ``sum``.
        beta: where the quadratic part ends, >= 0; with 0 it is the L1 loss.

    Shapes:
        Inputs and targets of the same shape. Returns a scalar, or that shape with reduction ``none``; 0 for an empty
        batch.

    Raises:
        ValueError: ``beta`` is negative, shapes do not match.

    Reference:
        torch.nn.SmoothL1Loss.
    """

    spec: ClassVar[LossSpec]

    def __init__(
        self,
        size_average: Optional[bool] = None,
        reduce: Optional[bool] = None,
        reduction: str = 'mean',
        beta: float = 1.0,
    ) -> None:
        super().__init__()
        check_not_negative(beta, 'beta')
        self.size_average = size_average
        self.reduce = reduce
        self.reduction = legacy_reduction(size_average, reduce, reduction)
        self.beta = float(beta)

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        """Computes the loss."""
        check_same_shape(target, input, 'target', 'input')
        return reduce_loss(smooth_l1_loss(input, target, None, self.beta), self.reduction, None)


TorchSmoothL1Loss.spec = LossSpec(
    functions=(smooth_l1_loss,),
    calls=torch_calls(),
    variants={
        'default': {},
        'narrow': {'beta': 0.125},
        'l1': {'beta': 0.0},
        'sum': {'reduction': 'sum', 'beta': 3.0},
        'deprecated': {'size_average': False, 'reduce': True},
        'none': {'reduction': 'none'},
    },
    references=('https://pytorch.org/docs/stable/generated/torch.nn.SmoothL1Loss.html',),
    stands_in_for=(HostClass('torch.SmoothL1Loss'), HostClass('mmocr.SmoothL1Loss')),
    differences=tuple(
        no_broadcast(host, 'tests/test_differences.py') for host in ('torch.SmoothL1Loss', 'mmocr.SmoothL1Loss')
    ),
)
