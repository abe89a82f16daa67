"""Helpers of all oracles: types, logarithms and reductions."""

from collections.abc import Mapping
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array: TypeAlias = NDArray[np.float64]
Inputs: TypeAlias = Mapping[str, NDArray[Any]]
Options: TypeAlias = Mapping[str, Any]

EPS = 2.0**-23  # of float32; OpenMMLab adds it to avg_factor


def log_softmax(x: Array) -> Array:
    """log p_c = x_c - m - log Σ exp(x - m), with m = max x. An entry of -inf has log p = -inf."""
    shifted = x - x.max()
    result: Array = shifted - np.log(np.exp(shifted).sum())
    return result


def log_sigmoid(x: ArrayLike) -> Array:
    """log σ(x) = min(x, 0) - log(1 + exp(-|x|)). Note that 1 - σ(x) = σ(-x)."""
    result: Array = np.minimum(x, 0.0) - np.log1p(np.exp(-np.abs(x)))
    return result


def times(coefficient: ArrayLike, value: ArrayLike) -> Array:
    """coefficient · value, with the limit 0 · inf = 0 of 0 · log 0. NaN stays NaN."""
    coefficient, value = np.asarray(coefficient, np.float64), np.asarray(value, np.float64)
    return np.where((coefficient == 0) & np.isinf(value), 0.0, coefficient * value)


def weighted(losses: Array, weight: ArrayLike | None) -> Array:
    """w · loss; an element of weight 0 is 0, even if it is NaN."""
    if weight is None:
        return losses
    w = np.asarray(weight, np.float64)
    return np.where(w == 0, 0.0, w * losses)


def reduce(loss: Array, options: Options, avg_factor: float | NDArray[Any] | None = None, eps: float = EPS) -> Array:
    """loss_weight times the losses ('none'), their sum, or their mean: Σ / N, or Σ / (avg_factor + eps)."""
    reduction = options['reduction']
    if reduction == 'none':
        result: Any = loss
    elif reduction == 'sum':
        result = loss.sum()
    elif avg_factor is None:
        result = loss.mean() if loss.size else 0.0  # nothing to average over: 0
    else:
        result = loss.sum() / (avg_factor + eps) if avg_factor != 0 else 0.0  # the same
    return np.asarray(options['loss_weight'] * result, dtype=np.float64)


def reduce_as_torch(loss: Array, options: Options, count: float | None = None) -> Array:
    """The losses ('none'), their sum, or their mean Σ / count; count defaults to their number.

    torch's deprecated pair overrides ``reduction``: ``reduce=False`` means 'none', ``size_average=False`` 'sum'.
    """
    size_average, each = options.get('size_average'), options.get('reduce')
    reduction = options['reduction']
    if size_average is not None or each is not None:
        reduction = 'none' if each is False else 'sum' if size_average is False else 'mean'
    if reduction == 'none':
        return loss
    count = loss.size if count is None else count
    divisor = 1.0 if reduction == 'sum' else count
    return np.asarray(loss.sum() / divisor if divisor else 0.0)  # nothing to average over: 0
