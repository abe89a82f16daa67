"""Sums, averages and the reductions of OpenMMLab and torch.nn."""

from typing import Optional, Union

import torch
from torch import Tensor

from lossreg.arith import is_eager, is_readable, is_traced, upcast
from lossreg.options import check_reduction

FLOAT32_EPS = 1.1920928955078125e-07


def total(x: Tensor) -> Tensor:
    """Sum of all elements; in a trace the last dimension first: one long chain in ONNX Runtime is wrong by 4e-4."""
    if not torch.jit.is_scripting():  # type: ignore[attr-defined]
        if is_traced(x):
            return x.sum(-1).sum() if x.dim() > 0 else x
    return x.sum()


def total_in_double(x: Tensor) -> Tensor:
    """:func:`total` in float64."""
    if not torch.jit.is_scripting():  # type: ignore[attr-defined]
        if is_traced(x):
            return total(x.double())
    return x.sum(dtype=torch.float64)


def total_per_sample(x: Tensor) -> Tensor:
    """Sum over all dimensions but the first, in a trace the last dimension first."""
    if not torch.jit.is_scripting():  # type: ignore[attr-defined]
        if not is_traced(x):
            return x.flatten(1).sum(1) if x.dim() > 1 else x
    for _ in range(x.dim() - 1):
        x = x.sum(-1)
    return x


def total_per_class(x: Tensor) -> Tensor:
    """Sum over all dimensions but the first two, samples and classes, in a trace the last dimension first."""
    if not torch.jit.is_scripting():  # type: ignore[attr-defined]
        if not is_traced(x):
            return x.flatten(2).sum(2) if x.dim() > 2 else x
    for _ in range(x.dim() - 2):
        x = x.sum(-1)
    return x


def all_per_sample(x: Tensor) -> Tensor:
    """Whether all elements are true, over all dimensions but the first."""
    for _ in range(x.dim() - 1):
        x = x.all(-1)
    return x


def average(summed: Tensor, count: Tensor) -> Tensor:
    """``summed / count``, and exactly 0 (still part of the graph) where nothing is counted."""
    return summed / count.masked_fill(count == 0, torch.inf)


def average_over(summed: Tensor, count: int) -> Tensor:
    """``summed / count`` for a Python size, and exactly 0 where the size is 0.

    In a trace the size becomes a tensor first: exporters freeze a Python condition.
    """
    if not torch.jit.is_scripting():  # type: ignore[attr-defined]
        if is_eager(summed):
            return summed / count if count > 0 else summed * 0.0
    return average(summed, torch.zeros_like(summed) + count)


def average_by(summed: Tensor, factor: Tensor, eps: float = FLOAT32_EPS) -> Tensor:
    """``summed / (factor + eps)``, as hosts average by ``avg_factor``; exactly 0 where the factor is 0."""
    return summed / (factor + eps).masked_fill(factor == 0, torch.inf)


def average_by_size(summed: Tensor, count: int, eps: float = FLOAT32_EPS) -> Tensor:
    """:func:`average_by` for a Python size, as hosts whose mean is one by ``avg_factor``."""
    if not torch.jit.is_scripting():  # type: ignore[attr-defined]
        if is_eager(summed):
            return summed / (count + eps) if count > 0 else summed * 0.0
    return average_by(summed, torch.zeros_like(summed) + count, eps)


@torch.jit.unused
def _in_full_precision(number: Union[float, Tensor]) -> Union[float, Tensor]:
    return upcast(number) if isinstance(number, Tensor) else number


def reduce_loss(loss: Tensor, reduction: str, avg_factor: Optional[float], eps: float = FLOAT32_EPS) -> Tensor:
    """Reduces element-wise losses, weighted already, as OpenMMLab does.

    ``none``: unchanged; ``sum``: their sum; ``mean``: their sum over the number of elements, or over ``avg_factor +
    eps`` if given.

    Args:
        loss: element-wise losses.
        reduction: ``none``, ``mean`` or ``sum``.
        avg_factor: a float, int or 0-d tensor; exactly 0 gives 0.
        eps: added to ``avg_factor``; mmdet and mmseg add float32's eps, mmpretrain adds none.

    Raises:
        ValueError: unknown ``reduction``, or ``avg_factor`` with ``reduction='sum'``.
    """
    check_reduction(reduction)
    if reduction == 'none':
        return loss
    summed = total(loss)
    if reduction == 'sum':
        if avg_factor is not None:
            raise ValueError("avg_factor cannot be used with reduction='sum'; use 'mean' or 'none'")
        return summed
    if avg_factor is None:
        return average_over(summed, loss.numel())
    if not torch.jit.is_scripting():  # type: ignore[attr-defined]
        if is_readable(avg_factor):
            factor = _in_full_precision(avg_factor)
            return summed / (factor + eps) if factor != 0 else summed * 0.0
    return average_by(summed, torch.zeros_like(summed) + avg_factor, eps)
