"""When fast forms may stand in for the portable ones.

The portable form of a formula is what is scripted, traced, compiled and exported: it masks whatever could spoil its
result. A fast form leaves the masks out, or knows the gradient in closed form, and gives way wherever it would not give
the same numbers: it then returns None, and the caller goes on with the portable form.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor

from lossreg import arith

# of each thread: one may leave portable_forms while another is inside
_enabled: ContextVar[bool] = ContextVar('_enabled', default=True)


@contextmanager
def portable_forms() -> Iterator[None]:
    """Inside, every loss takes its portable form, for checks that compare the two and for debugging."""
    before = _enabled.set(False)
    try:
        yield
    finally:
        _enabled.reset(before)


def is_fast(x: Tensor) -> bool:
    """Whether a fast form may be tried on ``x``: in plain eager mode on the CPU, where one may look at a value."""
    return arith.is_plain_eager(x) and _enabled.get()


@torch.jit.unused
def unmasked(formula: Callable[..., Tensor], x: Tensor, *others: Any) -> Tensor | None:
    """``formula(x, *others)`` without masks, where that is right; None where masks are needed.

    Masks keep NaN and infinity of elements that do not count out of the result. A finite sum of all losses proves that
    every one of them is finite, and zero weights then make their product, and its gradient, exactly 0.

    Args:
        formula: element-wise losses, whose derivative is finite where they are.
        x: decides whether a fast form may be tried.
        others: further arguments.
    """
    if not is_fast(x):
        return None
    loss = formula(x, *others)
    return loss if is_finite(loss) else None


def is_finite(loss: Tensor) -> bool:
    """Whether the sum of all losses is finite; if it is, all of them are."""
    summed = float(loss.detach().sum())
    return summed - summed == 0.0
