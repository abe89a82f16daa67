"""Gradients known in closed form, in place of autograd's."""

import torch
import torch.nn.functional as F
from torch import Tensor

from lossreg.arith import is_eager
from lossreg.ops.reductions import total_per_sample


def first_order(x: Tensor) -> Tensor:
    """``x`` with its first derivative; taking a second derivative raises RuntimeError.

    For values whose derivative is in closed form: autograd would treat that derivative as a constant, and second
    derivatives would be silently wrong. Traces get ``x`` itself; nothing differentiates them twice.
    """
    if not torch.jit.is_scripting():  # type: ignore[attr-defined]
        if not is_eager(x):
            return x
    # a sum over segments of one element: torch has its first derivative but no second, in TorchScript too
    # an extra element, because on CUDA torch divides by their number
    flat = F.pad(x.reshape(-1), [0, 1])
    lengths = torch.ones_like(flat, dtype=torch.int64)
    return torch.segment_reduce(flat, 'sum', lengths=lengths, unsafe=True)[:-1].view(x.shape)


def gradient_alone(x: Tensor) -> Tensor:
    """0, with the derivative of ``x``, which must be finite; it is :func:`first_order`."""
    x = first_order(x)
    return x - x.detach()


def with_gradient(value: Tensor, x: Tensor, gradient: Tensor) -> Tensor:
    """``value`` with the derivative ``gradient`` by ``x``, where that is known in closed form: :func:`first_order`.

    Args:
        value: one number a sample, (N).
        x: finite, (N, ...).
        gradient: of the shape of ``x``.
    """
    return value.detach() + gradient_alone(total_per_sample(gradient.detach() * x))
