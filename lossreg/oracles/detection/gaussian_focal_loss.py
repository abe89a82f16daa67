"""Focal loss of heatmaps whose targets are Gaussian bumps."""

from typing import Any

import numpy as np

from lossreg.oracles.reference import Array, Inputs, Options, reduce, weighted

EPS = 1e-12


@np.errstate(all='ignore')
def gaussian_focal_loss(call: str, inputs: Inputs, options: Options) -> Array:
    """``heatmaps``: reduction of w (w₊ [t = 1] a + w₋ (1 - t)^γ b), a = -(1 - p)^α log(p + ε), b = -p^α log(1 - p + ε).

    ``places``: w₊ times the reduction of a at the given places, plus w₋ times the reduction of (1 - t)^γ b everywhere.
    """
    p, t, alpha, factor = inputs['pred'], inputs['target'], options['alpha'], inputs.get('avg_factor')
    positive = np.vectorize(lambda x: -((1 - x) ** alpha) * np.log(x + EPS) if 0 <= x <= 1 else np.nan, otypes=[float])
    negative = np.vectorize(lambda x: -(x**alpha) * np.log(1 - x + EPS) if 0 <= x <= 1 else np.nan, otypes=[float])
    negatives = (1 - t) ** options['gamma'] * negative(p)
    if call == 'heatmaps':
        losses = options['pos_weight'] * (t == 1) * positive(p) + options['neg_weight'] * negatives
        return reduce(weighted(losses, inputs.get('weight')), options, factor)
    positives = positive([p[n, c] for n, c in zip(inputs['pos_inds'], inputs['pos_labels'], strict=True)])
    result: Any = options['pos_weight'] * reduce(positives, options, factor)
    return np.asarray(result + options['neg_weight'] * reduce(negatives, options, factor))
