"""Cosine similarity loss."""

import numpy as np

from lossreg.oracles.reference import Array, Inputs, Options


@np.errstate(all='ignore')
def cosine_similarity_loss(call: str, inputs: Inputs, options: Options) -> Array:
    """loss = Σ m · (shift - scale · cos(x, t)) / Σ m over the vectors x and t in the last dimension; m = 1 if absent.

    cos(x, t) = x·t / (max(|x|, 1e-12) max(|t|, 1e-12)).
    """
    pred, target, mask = inputs['pred'], inputs['target'], inputs.get('mask')
    summed, count = 0.0, 0.0
    for i in np.ndindex(pred.shape[:-1]):
        m = 1.0 if mask is None else float(mask[i])
        if m == 0:
            continue
        x, t = pred[i], target[i]
        cosine = float((x / _length(x) * t / _length(t)).sum())
        summed += m * (options['shift_factor'] - options['scale_factor'] * cosine)
        count += m
    return np.asarray(summed / count if count else 0.0)


def _length(x: Array) -> float:
    return float(np.maximum(np.sqrt((x * x).sum()), 1e-12))
