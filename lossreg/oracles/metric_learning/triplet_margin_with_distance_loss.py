"""Triplet margin loss with a distance by name."""

import numpy as np

from lossreg.oracles.reference import Array, Inputs, Options, reduce_as_torch


@np.errstate(all='ignore')
def triplet_margin_with_distance_loss(call: str, inputs: Inputs, options: Options) -> Array:
    """loss = reduction of max(0, margin + d(a, p) - d(a, n)); with ``swap`` of min(d(a, n), d(p, n)) in its place.

    The call ``unbatched`` has one triplet.
    """
    anchor, positive, negative = inputs['anchor'], inputs['positive'], inputs['negative']
    distance = {None: _euclidean, 'euclidean': _euclidean, 'cosine': _cosine, 'squared': _squared}[
        options['distance_function']
    ]
    losses = np.zeros(anchor.shape[:-1])
    for n in np.ndindex(losses.shape):
        to_negative = distance(anchor[n], negative[n])
        if options['swap']:
            to_negative = np.minimum(to_negative, distance(positive[n], negative[n]))
        losses[n] = np.maximum(options['margin'] + distance(anchor[n], positive[n]) - to_negative, 0)
    return reduce_as_torch(losses, options)


def _euclidean(x: Array, y: Array) -> float:
    """|x - y + 1e-6|, as torch's PairwiseDistance has it."""
    return float(np.sqrt(((x - y + 1e-6) ** 2).sum()))


def _squared(x: Array, y: Array) -> float:
    """|x - y|²."""
    return float(((x - y) ** 2).sum())


def _cosine(x: Array, y: Array) -> float:
    """1 - x·y / (|x| |y|), with norms of at least 1e-8."""
    norms = [np.maximum(np.sqrt((v * v).sum()), 1e-8) for v in (x, y)]
    return float(1 - (x * y).sum() / (norms[0] * norms[1]))
