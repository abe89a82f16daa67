"""Batch-all triplet loss."""

import numpy as np

from lossreg.oracles.reference import Array, Inputs, Options
from lossreg.oracles.triplets import distances, others


@np.errstate(all='ignore')
def batch_all_triplet_loss(call: str, inputs: Inputs, options: Options) -> dict[str, Array]:
    """loss = loss_weight · mean of all positive d_ap - d_an + margin, over triplets y_p = y_a ≠ y_n, p ≠ a.

    count is the number of positive ones. d = sqrt(max(|x_i - x_j|², 1e-12)), or |x_i - x_j|² if ``squared``.
    """
    d = distances(inputs['inputs'], options['squared'])
    total, count = 0.0, 0
    for a in range(len(d)):
        positives, negatives = others(inputs['targets'], a)
        for p in positives:
            for n in negatives:
                hinge = d[a, p] - d[a, n] + options['margin']
                if hinge > 0 or np.isnan(hinge):
                    total += hinge
                    count += 1
    loss = options['loss_weight'] * total / max(count, 1)
    return {'loss': np.asarray(loss, dtype=np.float64), 'count': np.asarray(count, dtype=np.float64)}
