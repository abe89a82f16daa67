"""Negative log-likelihood of a Gaussian whose variance is predicted."""

from typing import ClassVar, Tuple, Union

import torch
from torch import Tensor, nn

from lossreg.arith import check_broadcast, check_dim, check_leading_shape, check_same_shape, poison, upcast
from lossreg.ops.reductions import reduce_loss
from lossreg.options import check_reduction
from lossreg.registry import LOSSES
from lossreg.spec import Call, Difference, HostClass, Input, LossSpec, Role
from lossreg.spec_parts.differences import no_broadcast


def gaussian_nll_loss(input: Tensor, target: Tensor, var: Tensor, full: bool = False, eps: float = 1e-6) -> Tensor:
    r"""Negative log-likelihood of each target under a Gaussian.

    .. math::
        \ell = \frac{1}{2} \left(\log v + \frac{(x - t)^2}{v}\right) \;\left[+\; \tfrac{1}{2} \log 2 \pi\right], \qquad
        v = \max(\mathrm{var}, \epsilon)

    The gradient passes through the maximum unchanged, as in torch: a variance below ``eps`` still learns to grow.

    Args:
        input: means x, of any shape.
        target: t, of the same shape.
        var: variances >= 0, of the same shape, with one dimension of size 1, or without the last dimension. A negative
            one gives NaN.
        full: whether to include the constant in brackets.
        eps: lower bound of the variance.

    Returns:
        The losses, of the shape of ``input``.

    Raises:
        ValueError: shapes do not match.
    """
    check_same_shape(target, input, 'target', 'input')
    if var.dim() == input.dim():
        check_broadcast(var, input, 'var', 'input', 1)
    else:
        check_dim(var, input.dim() - 1, 'var')
        check_leading_shape(var, input, input.dim() - 1, 'var', 'input')
        var = var.unsqueeze(-1)
    x, t, v = upcast(input), upcast(target), upcast(var)
    legal = ~(v < 0)
    # max(v, eps), with derivative 1 everywhere
    v = torch.where(v < eps, v - v.detach() + eps, v)
    d = x - t
    # (log v + (x - t)^2 / v) / 2
    loss = 0.5 * (torch.log(v) + d * d / v)
    if full:
        # + log(2 pi) / 2
        loss = loss + 0.9189385332046727
    return poison(loss, legal)


@LOSSES.register_module()
class GaussianNLLLoss(nn.Module):
    """Regression with a predicted variance: negative log-likelihood of a Gaussian.

    Drop-in replacement for ``torch.nn.GaussianNLLLoss`` (same call and numbers); see :func:`gaussian_nll_loss`.

    Args:
        full: whether to include the constant log(2 pi) / 2.
        eps: lower bound of the variance, > 0.
        reduction: ``none``, ``mean`` (over all elements) or ``sum``.

    Shapes:
        Inputs and targets of the same shape. Variances of that shape (heteroscedastic), or (homoscedastic) with one
        dimension of size 1, without the last dimension, or one float. Returns a scalar, or the shape of the input with
        reduction ``none``; 0 for an empty batch.

    Raises:
        ValueError: ``eps`` is not above 0, shapes do not match.

    Reference:
        Nix and Weigend, Estimating the Mean and Variance of the Target Probability Distribution, ICNN 1994.
    """

    spec: ClassVar[LossSpec]

    def __init__(self, *, full: bool = False, eps: float = 1e-6, reduction: str = 'mean') -> None:
        super().__init__()
        check_reduction(reduction)
        if eps <= 0:
            raise ValueError(f'eps must be above 0, got {eps}')
        self.full = full
        self.eps = float(eps)
        self.reduction = reduction

    def forward(self, input: Tensor, target: Tensor, var: Union[Tensor, float]) -> Tensor:
        """Computes the loss; ``var`` may be one float for all."""
        if isinstance(var, float):
            return self._reduced(input, target, torch.zeros_like(upcast(input)) + var)
        return self._reduced(input, target, var)

    def _reduced(self, input: Tensor, target: Tensor, var: Tensor) -> Tensor:
        """Computes the loss with a tensor of variances."""
        return reduce_loss(gaussian_nll_loss(input, target, var, self.full, self.eps), self.reduction, None)


def _call(name: str, shape: str, var: str, stretches: Tuple[str, ...] = ()) -> Call:
    """A call with variances of shape ``var``; in eager mode one of the dimensions ``stretches`` may be 1."""
    return Call(
        name,
        (
            Input('input', Role.LOGITS, shape, differentiable=True),
            Input('target', Role.LOGITS, shape),
            Input('var', Role.POSITIVE, var, differentiable=True, broadcasts=stretches),
        ),
    )


GaussianNLLLoss.spec = LossSpec(
    functions=(gaussian_nll_loss,),
    calls=(
        _call('vectors', 'N C', 'N C', ('N', 'C')),
        _call('images', 'N C H W', 'N C H W', ('N', 'C', 'H', 'W')),
        _call('shared', 'N C', 'N 1'),
        _call('pixels', 'N C H W', 'N 1 H W'),
        _call('samples', 'N C', 'N'),
    ),
    variants={
        'default': {},
        'full': {'full': True, 'eps': 1e-3},
        'sum': {'reduction': 'sum'},
        'none': {'reduction': 'none', 'full': True},
    },
    references=('https://pytorch.org/docs/stable/generated/torch.nn.GaussianNLLLoss.html',),
    stands_in_for=(HostClass('torch.GaussianNLLLoss'),),
    differences=(
        no_broadcast('torch.GaussianNLLLoss', 'tests/test_differences.py'),
        Difference(
            'torch.GaussianNLLLoss',
            'a negative variance gives NaN; torch raises ValueError',
            'no graph can raise for a value; NaN is the same everywhere',
            'tests/test_differences.py',
        ),
    ),
)
