"""Triplet loss with a random violating negative."""

import numpy as np

from lossreg.oracles.reference import Array, Inputs, Options
from lossreg.oracles.triplets import distances, others


@np.errstate(all='ignore')
def random_negative_triplet_loss(call: str, inputs: Inputs, options: Options) -> Array:
    """loss = loss_weight · mean over all (a, p), y_p = y_a, p ≠ a, with a violating negative, of d_ap - d_an + margin.

    The violating negatives have d_an < d_ap + margin and are ordered by distance, ties by index; n is the one at
    position floor(u_ap · their number). d = |x_i - x_j|², or its root where not ``squared``.
    """
    noise = inputs['noise']
    d = distances(inputs['inputs'], options['squared'])
    losses = []
    for a in range(len(d)):
        positives, negatives = others(inputs['targets'], a)
        for p in positives if negatives else []:
            if np.isnan(d[a, [p, *negatives]]).any():  # which negatives violate is undefined
                losses.append(np.nan)
                continue
            violating = sorted((n for n in negatives if d[a, n] < d[a, p] + options['margin']), key=lambda n: d[a, n])
            if violating:
                n = violating[int(np.floor(noise[a, p] * len(violating)))]
                losses.append(d[a, p] - d[a, n] + options['margin'])
    return np.asarray(options['loss_weight'] * sum(losses) / max(len(losses), 1), dtype=np.float64)
