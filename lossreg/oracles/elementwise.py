"""What oracles of element-wise losses need: they compute whole arrays, each line as one would write one element."""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lossreg.oracles.reference import Array, Options, reduce


def times(coefficient: ArrayLike, value: Array) -> Array:
    """coefficient · value, with the limit 0 · inf = 0 of 0 · log 0. NaN stays NaN."""
    coefficient = np.asarray(coefficient, np.float64)
    return np.where((coefficient == 0) & np.isinf(value), 0.0, coefficient * value)


def log_sigmoid(x: Array) -> Array:
    """log σ(x) = min(x, 0) - log(1 + exp(-|x|)). Note that 1 - σ(x) = σ(-x)."""
    result: Array = np.minimum(x, 0.0) - np.log1p(np.exp(-np.abs(x)))
    return result


def weighted(losses: Array, weight: NDArray[Any] | list[Any] | None) -> Array:
    """w · loss; what has weight 0 does not count, even if it is NaN."""
    if weight is None:
        return losses
    w = np.asarray(weight, np.float64)
    return np.where(w == 0, 0.0, w * losses)


def torch_reduce(losses: Array, options: Options) -> Array:
    """torch's reduction: ``reduction``, unless the deprecated ``reduce`` or ``size_average`` is given."""
    size_average, each = options.get('size_average'), options.get('reduce')
    reduction = options['reduction']
    if size_average is not None or each is not None:
        reduction = 'none' if each is False else 'sum' if size_average is False else 'mean'
    return reduce(losses, {'reduction': reduction, 'loss_weight': 1.0})
