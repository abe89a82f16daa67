"""Helpers of the oracles of triplet losses: all distances, by plain loops."""

import numpy as np

from lossreg.oracles.reference import Array


def distances(features: Array, squared: bool, floor: float = 1e-12) -> Array:
    """d_ij = |x_i - x_j|² if ``squared``, else sqrt(max(|x_i - x_j|², floor)): (N, N)."""
    d = np.zeros((len(features), len(features)))
    for i in range(len(features)):
        for j in range(len(features)):
            d[i, j] = ((features[i] - features[j]) ** 2).sum()
            if not squared:
                d[i, j] = np.sqrt(np.maximum(d[i, j], floor))
    return d


def others(identity: Array, anchor: int) -> tuple[list[int], list[int]]:
    """The positives of an anchor, except itself, and its negatives."""
    everyone = [j for j in range(len(identity)) if j != anchor]
    positives = [j for j in everyone if identity[j] == identity[anchor]]
    return positives, [j for j in everyone if j not in positives]
