"""Batch-hard triplet loss."""

import numpy as np

from lossreg.oracles.reference import Array, Inputs, Options
from lossreg.oracles.triplets import distances, others


@np.errstate(all='ignore')
def triplet_loss(call: str, inputs: Inputs, options: Options) -> Array | dict[str, Array]:
    """loss = loss_weight / N · Σ_i max(0, max_{y_j = y_i} d_ij - min_{y_j ≠ y_i} d_ij + margin).

    d_ij = sqrt(max(|x_i - x_j|², 1e-12)), or |x_i - x_j|² if ``squared``. An anchor is its own positive; without any
    negative it contributes 0. ``soft_margin``: log(1 + exp(max - min)). ``skip_invalid``: only anchors with another
    positive and a negative, and N is their number. ``size_average=False``: no division by N.
    """
    features, identity = inputs['inputs'], inputs['targets']
    d = distances(features, options['squared'])
    total, count = 0.0, 0
    for i in range(len(features)):
        positives, negatives = others(identity, i)
        if options['skip_invalid'] and not (positives and negatives):
            continue
        count += 1
        if not negatives:
            continue
        gap = d[i, [*positives, i]].max() - d[i, negatives].min()
        total += np.logaddexp(0.0, gap) if options['soft_margin'] else np.maximum(gap + options['margin'], 0.0)
    if options['size_average'] is not False:
        total /= max(count, 1)
    loss = np.asarray(options['loss_weight'] * total, dtype=np.float64)
    return {'loss': loss, 'distances': d} if options['mutual_flag'] else loss
