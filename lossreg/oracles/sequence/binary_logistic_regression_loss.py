"""Class-balanced binary cross-entropy of probabilities."""

import numpy as np

from lossreg.oracles.reference import Array, Inputs, Options


@np.errstate(all='ignore')
def binary_logistic_regression_loss(call: str, inputs: Inputs, options: Options) -> Array:
    """loss = -1/n (r/2 Σ_pos log(p + ε) + r / 2(r - 1) Σ_neg log(1 - p + ε)); positives have a label above θ.

    r = n / max(n_pos, 1), clamped to ratio_range. A NaN label is neither positive nor negative, and gives NaN.
    """
    scores, labels = inputs['reg_score'].ravel(), inputs['label'].ravel()
    n = len(labels)
    if n == 0:
        return np.asarray(0.0)
    if np.isnan(labels).any():
        return np.asarray(np.nan)
    ratio = np.clip(n / max(int((labels > options['threshold']).sum()), 1), *options['ratio_range'])
    summed = 0.0
    for p, label in zip(scores, labels, strict=True):
        if label > options['threshold']:
            summed += ratio / 2 * np.log(p + options['eps'])
        else:
            summed += ratio / (2 * (ratio - 1)) * np.log(1 - p + options['eps'])
    return np.asarray(-summed / n)
