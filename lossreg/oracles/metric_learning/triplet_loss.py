"""Batch-hard triplet loss."""

import numpy as np

from lossreg.oracles.reference import Array, Inputs, Options


@np.errstate(all='ignore')
def triplet_loss(call: str, inputs: Inputs, options: Options) -> Array:
    """loss = loss_weight/N · Σ_i max(0, max_{y_j = y_i} d_ij - min_{y_j ≠ y_i} d_ij + margin).

    d_ij = sqrt(max(|x_i - x_j|², 1e-12)). An anchor is its own positive; without any negative it contributes 0.
    """
    features, identity = inputs['inputs'], inputs['targets']
    total = 0.0
    for i in range(len(features)):
        distance = np.sqrt(np.maximum(((features - features[i]) ** 2).sum(axis=1), 1e-12))  # d_ij of all j
        same = identity == identity[i]
        if same.all():
            continue
        hinge = distance[same].max() - distance[~same].min() + options['margin']
        total += np.maximum(hinge, 0.0)
    return np.asarray(options['loss_weight'] * total / max(len(features), 1), dtype=np.float64)
