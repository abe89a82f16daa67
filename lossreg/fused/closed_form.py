"""Losses whose gradient is computed beside their value, from the same intermediate results."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

from lossreg.fused.switch import is_fast, is_finite, portable_forms

Forward = Callable[..., tuple[Tensor, Tensor | None]]


class _ClosedForm(torch.autograd.Function):
    """Element-wise losses with a gradient known in closed form; a second derivative is that of the portable form."""

    @staticmethod
    def forward(ctx: Any, forward: Forward, portable: Callable[..., Tensor], x: Tensor, *others: Any) -> Tensor:
        loss, gradient = forward(x, *others, needs_gradient=ctx.needs_input_grad[2])
        ctx.portable = portable
        # saved tensors raise if they were changed in place; here their class keeps their places
        ctx.others = [Tensor if isinstance(other, Tensor) else other for other in others]
        ctx.save_for_backward(x, gradient, *(other for other in others if isinstance(other, Tensor)))
        return loss

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> Any:
        x, gradient, *tensors = ctx.saved_tensors
        nothing = (None,) * len(ctx.others)
        if not torch.is_grad_enabled():
            return None, None, gradient * upstream, *nothing
        saved = iter(tensors)
        others = [next(saved) if other is Tensor else other for other in ctx.others]
        with portable_forms():
            loss = ctx.portable(x, *others)
        (differentiable,) = torch.autograd.grad(loss, x, upstream, create_graph=True)
        return None, None, differentiable, *nothing


def _has_tangent(x: Tensor) -> bool:
    """Whether ``x`` is differentiated in forward mode, for which there is no closed form."""
    return forward_ad.unpack_dual(x).tangent is not None  # type: ignore[no-untyped-call]


def _suits(other: Any, x: Tensor) -> bool:
    """Whether a further argument is a constant, of the precision of ``x``: in-place products would not take a wider."""
    if not isinstance(other, Tensor):
        return True
    is_alike = other.dtype == x.dtype or not other.is_floating_point()
    return is_alike and not other.requires_grad and not _has_tangent(other)


def closed_form(forward: Forward, portable: Callable[..., Tensor], x: Tensor, *others: Any) -> Tensor | None:
    """The losses of ``x`` by ``forward``; None where no fast form may be tried or a loss is not finite.

    Args:
        forward: takes ``x``, ``others`` and ``needs_gradient``; returns the losses, of the shape of ``x``, and their
            derivative by ``x``, finite where they are, or None where it is not needed.
        portable: takes ``x`` and ``others``; returns the losses, differentiable as often as one likes.
        x: what may be differentiated.
        others: further arguments, constants to the derivative. None is returned if one is not, or if its precision is
            not that of ``x``.
    """
    if not is_fast(x) or _has_tangent(x) or not all(_suits(other, x) for other in others):
        return None
    loss: Tensor = _ClosedForm.apply(forward, portable, x, *others)  # type: ignore[no-untyped-call]
    return loss if is_finite(loss) else None
