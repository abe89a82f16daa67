"""Semi-hard triplet loss (FaceNet)."""

import numpy as np

from lossreg.oracles.reference import Array, Inputs, Options
from lossreg.oracles.triplets import distances, others


@np.errstate(all='ignore')
def semi_hard_triplet_loss(call: str, inputs: Inputs, options: Options) -> Array:
    """loss = loss_weight · mean over all (a, p), y_p = y_a, p ≠ a, of max(0, d_ap - d_an + margin).

    n is the nearest negative with d_an > d_ap, or the farthest negative where there is none. Anchors without negatives
    do not count. d = |x_i - x_j|², or its root where not ``squared``.
    """
    d = distances(inputs['inputs'], options['squared'])
    losses = []
    for a in range(len(d)):
        positives, negatives = others(inputs['targets'], a)
        for p in positives if negatives else []:
            farther = [d[a, n] for n in negatives if d[a, n] > d[a, p]]
            chosen = min(farther) if farther else max(d[a, n] for n in negatives)
            if np.isnan(d[a, negatives]).any():  # the nearest is undefined
                chosen = np.nan
            losses.append(np.maximum(d[a, p] - chosen + options['margin'], 0.0))
    return np.asarray(options['loss_weight'] * sum(losses) / max(len(losses), 1), dtype=np.float64)
