"""Kullback-Leibler divergence of log-probabilities."""

from typing import ClassVar, Optional

from torch import Tensor, nn

from lossreg.ops.divergences import divergence_of_probabilities
from lossreg.ops.reductions import average_over, reduce_loss, total
from lossreg.options import legacy_reduction
from lossreg.registry import LOSSES
from lossreg.spec import HostClass, LossSpec, Role
from lossreg.spec_parts.differences import no_broadcast
from lossreg.spec_parts.torch_nn import torch_calls


def kl_div_loss(input: Tensor, target: Tensor, log_target: bool = False) -> Tensor:
    r"""The term of each element in the Kullback-Leibler divergence of the target from the input.

    .. math::
        \ell = t \left(\log t - x\right)

    with :math:`0 \log 0 = 0`, also where x is -inf.

    Args:
        input: log-probabilities x, of any shape.
        target: probabilities t >= 0, or log t with ``log_target``, of the same shape.
        log_target: see ``target``.

    Returns:
        The terms, of the shape of ``input``.

    Raises:
        ValueError: shapes do not match.
    """
    return divergence_of_probabilities(input, target, log_target)


@LOSSES.register_module()
class KLDivLoss(nn.Module):
    """Kullback-Leibler divergence of log-probabilities from a target distribution.

    Drop-in replacement for ``torch.nn.KLDivLoss`` (same call and numbers); see :func:`kl_div_loss`.

    Args:
        size_average: deprecated; False means ``reduction='sum'``.
        reduce: deprecated; False means ``reduction='none'``.
        reduction: ``none``, ``sum``, ``mean`` (over all elements, which is not the divergence) or ``batchmean`` (the
            sum divided by the size of the first dimension, which is the divergence).
        log_target: whether targets are log-probabilities.

    Shapes:
        Inputs and targets of one shape. Returns a scalar, or that shape with reduction ``none``; 0 for an empty batch.

    Raises:
        ValueError: shapes do not match.

    Reference:
        torch.nn.KLDivLoss.
    """

    spec: ClassVar[LossSpec]

    def __init__(
        self,
        size_average: Optional[bool] = None,
        reduce: Optional[bool] = None,
        reduction: str = 'mean',
        log_target: bool = False,
    ) -> None:
        super().__init__()
        self.size_average = size_average
        self.reduce = reduce
        if reduction == 'batchmean' and size_average is None and reduce is None:
            self.reduction = reduction
        else:
            # the deprecated pair overrides batchmean too
            self.reduction = legacy_reduction(size_average, reduce, 'mean' if reduction == 'batchmean' else reduction)
        self.log_target = log_target

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        """Computes the loss."""
        loss = kl_div_loss(input, target, self.log_target)
        if self.reduction == 'batchmean':
            return average_over(total(loss), loss.size(0)) if loss.dim() > 0 else loss
        return reduce_loss(loss, self.reduction, None)


_ROLE = Role.LOG_PROBABILITIES

KLDivLoss.spec = LossSpec(
    functions=(kl_div_loss,),
    calls=(
        *torch_calls(_ROLE, Role.DISTRIBUTION, when=lambda loss: not loss.log_target),
        *torch_calls(_ROLE, _ROLE, ('log_vectors', 'log_images'), when=lambda loss: loss.log_target),
    ),
    variants={
        'default': {},
        'batchmean': {'reduction': 'batchmean'},
        'log_target': {'reduction': 'batchmean', 'log_target': True},
        'sum': {'reduction': 'sum'},
        'deprecated': {'size_average': False, 'reduce': True},
        'none': {'reduction': 'none'},
    },
    references=('https://pytorch.org/docs/stable/generated/torch.nn.KLDivLoss.html',),
    stands_in_for=(HostClass('torch.KLDivLoss'),),
    differences=(no_broadcast('torch.KLDivLoss', 'tests/test_differences.py'),),
)
