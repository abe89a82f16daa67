"""Helpers of the oracles of mmocr's losses: masks, binary cross-entropies, and hard negative mining."""

import numpy as np

from lossreg.oracles.reference import Array, Inputs, Options, log_sigmoid, times


def counted(inputs: Inputs) -> tuple[Array, Array, Array]:
    """Predictions, targets and mask of the elements whose mask is not 0, in one row."""
    mask = np.asarray(inputs.get('mask', np.ones(inputs['gt'].shape)), np.float64)
    chosen = mask != 0
    return inputs['pred'][chosen], inputs['gt'][chosen], mask[chosen]


def binary_cross_entropy(x: Array, t: Array, logits: bool) -> Array:
    """-(t log p + (1 - t) log(1 - p)); p is the sigmoid of x, or x itself, whose logarithms are at least -100."""
    if logits:
        log_p, log_q = log_sigmoid(x), log_sigmoid(-x)
    else:
        log_p, log_q = np.maximum(np.log(x), -100.0), np.maximum(np.log1p(-x), -100.0)
    result: Array = -(times(t, log_p) + times(1 - t, log_q))
    return result


def balanced(inputs: Inputs, options: Options, logits: bool) -> Array:
    """(Σ mt ℓ + Σ of the k largest m(1 - t) ℓ) / (P + k + ε), with P = ⌊Σ mt⌋.

    k is at most ⌊Σ m(1 - t)⌋, and at most ⌊ratio · P⌋, or without positives the fallback. Elements of weight 0 do not
    count; NaN is the hardest of all.
    """
    x, t, m = counted(inputs)
    if np.isnan(t * m).any():
        return np.asarray(np.nan)
    losses = binary_cross_entropy(x, t, logits)
    positive, negative = m * t, m * (1 - t)
    positives = int(positive.sum())
    wanted = int(positives * options['negative_ratio']) if positives else options['fallback_negative_num']
    count = min(int(negative.sum()), wanted)
    hardest = np.sort((negative * losses)[negative > 0])[::-1][:count]
    summed = (positive * losses)[positive > 0].sum() + hardest.sum()
    return np.asarray(summed / (positives + count + options['eps']))
