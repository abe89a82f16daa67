"""TripletSemihardLoss as in a tutorial: in fact a batch-hard triplet loss."""

import numpy as np

from lossreg.oracles.reference import Array, Inputs, Options
from lossreg.oracles.triplets import distances, others


@np.errstate(all='ignore')
def triplet_semihard_loss(call: str, inputs: Inputs, options: Options) -> Array:
    """loss = 1/N · Σ_i max(0, max_{y_j = y_i} d_ij - min_{y_j ≠ y_i} d_ij + margin), or the sum without 1/N.

    d_ij = sqrt(max(|x_i - x_j|², 1e-16)). An anchor is its own positive; without any negative it contributes 0.
    """
    features, identity = inputs['input'], inputs['target']
    d = distances(features, squared=False, floor=1e-16)
    losses = [0.0]
    for i in range(len(features)):
        positives, negatives = others(identity, i)
        if negatives:
            losses.append(np.maximum(d[i, [*positives, i]].max() - d[i, negatives].min() + options['margin'], 0.0))
    loss = sum(losses)
    return np.asarray(loss if options['size_average'] is False else loss / max(len(features), 1), dtype=np.float64)
