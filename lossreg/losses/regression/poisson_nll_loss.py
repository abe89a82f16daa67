"""Negative log-likelihood of Poisson counts."""

from typing import ClassVar, Optional

import torch
from torch import Tensor, nn

from lossreg.arith import check_same_shape, upcast
from lossreg.ops.reductions import reduce_loss
from lossreg.options import legacy_reduction
from lossreg.registry import LOSSES
from lossreg.spec import Call, HostClass, Input, LossSpec, Role
from lossreg.spec_parts.differences import no_broadcast


def poisson_nll_loss(
    input: Tensor, target: Tensor, log_input: bool = True, full: bool = False, eps: float = 1e-8
) -> Tensor:
    r"""Negative log-likelihood of each count.

    .. math::
        \ell = \lambda - t \log \lambda
        \;\left[+\; t \log t - t + \tfrac{1}{2} \log(2 \pi t) \text{ where } t > 1\right]

    :math:`\lambda = e^x`, or :math:`\lambda = x` and :math:`\log \lambda = \log(x + \epsilon)` without ``log_input``,
    with :math:`0 \log 0 = 0`. The bracket, added with ``full``, is Stirling's approximation of :math:`\log t!`.

    Args:
        input: x, of any shape.
        target: counts t >= 0, of the same shape.
        log_input: whether x is the logarithm of the rate.
        full: whether to include the bracket.
        eps: keeps the logarithm of a rate of 0 finite.

    Returns:
        The losses, of the shape of ``input``.

    Raises:
        ValueError: shapes do not match.
    """
    check_same_shape(target, input, 'target', 'input')
    x, t = upcast(input), upcast(target)
    rate = torch.exp(x) if log_input else x
    log_rate = x if log_input else torch.log(x + eps)
    # lambda - t log lambda, without the product at t = 0, where log lambda may be -inf
    loss = rate - torch.where(t == 0, 0.0, t * log_rate)
    if full:
        many = t > 1
        n = torch.where(many, t, 1.0)
        # t log t - t + log(2 pi t) / 2
        loss = loss + torch.where(many, n * torch.log(n) - n + 0.5 * torch.log(6.283185307179586 * n), 0.0)
    return loss


@LOSSES.register_module()
class PoissonNLLLoss(nn.Module):
    """Regression of counts: negative log-likelihood of a Poisson distribution.

    Drop-in replacement for ``torch.nn.PoissonNLLLoss`` (same call and numbers); see :func:`poisson_nll_loss`.

    Args:
        log_input: whether inputs are logarithms of rates.
        full: whether to include Stirling's term of the target.
        size_average: deprecated; False means ``reduction='sum'``.
        eps: keeps the logarithm of a rate of 0 finite; without ``log_input`` only.
        reduce: deprecated; False means ``reduction='none'``.
        reduction: ``none``, ``mean`` (over all elements) or ``sum``.

    Shapes:
        Inputs and targets of the same shape. Returns a scalar, or that shape with reduction ``none``; 0 for an empty
        batch. In float32 the exponential of a log rate above 88 overflows.

    Raises:
        ValueError: shapes do not match.

    Reference:
        torch.nn.PoissonNLLLoss.
    """

    spec: ClassVar[LossSpec]

    def __init__(
        self,
        log_input: bool = True,
        full: bool = False,
        size_average: Optional[bool] = None,
        eps: float = 1e-8,
        reduce: Optional[bool] = None,
        reduction: str = 'mean',
    ) -> None:
        super().__init__()
        self.log_input = log_input
        self.full = full
        self.size_average = size_average
        self.eps = float(eps)
        self.reduce = reduce
        self.reduction = legacy_reduction(size_average, reduce, reduction)

    def forward(self, log_input: Tensor, target: Tensor) -> Tensor:
        """Computes the loss. The first parameter has torch's name; it is a rate where ``log_input`` is off."""
        loss = poisson_nll_loss(log_input, target, self.log_input, self.full, self.eps)
        return reduce_loss(loss, self.reduction, None)


def _call(name: str, role: Role, shape: str) -> Call:
    """A call with logarithms of rates, or with rates."""
    is_log = role is Role.LOGITS
    return Call(
        name,
        (
            # e^88 overflows float32
            Input('input', role, shape, differentiable=True, limit=80.0),
            Input('target', Role.COUNTS, shape),
        ),
        arguments={'log_input': 'input'},
        when=lambda loss: loss.log_input == is_log,
    )


PoissonNLLLoss.spec = LossSpec(
    functions=(poisson_nll_loss,),
    calls=(
        _call('vectors', Role.LOGITS, 'N C'),
        _call('images', Role.LOGITS, 'N C H W'),
        _call('rates', Role.POSITIVE, 'N C'),
        _call('rate_images', Role.POSITIVE, 'N C H W'),
    ),
    variants={
        'default': {},
        'full': {'full': True},
        'sum': {'reduction': 'sum'},
        'deprecated': {'size_average': False, 'reduce': True},
        'none': {'reduction': 'none', 'full': True},
        'rates': {'log_input': False, 'eps': 1e-6, 'full': True},
    },
    references=('https://pytorch.org/docs/stable/generated/torch.nn.PoissonNLLLoss.html',),
    stands_in_for=(HostClass('torch.PoissonNLLLoss'),),
    differences=(no_broadcast('torch.PoissonNLLLoss', 'tests/test_differences.py'),),
)
