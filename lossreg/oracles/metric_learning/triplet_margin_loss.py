"""Triplet margin loss with a p-norm."""

import numpy as np

from lossreg.oracles.reference import Array, Inputs, Options, reduce_as_torch


@np.errstate(all='ignore')
def triplet_margin_loss(call: str, inputs: Inputs, options: Options) -> Array:
    """loss = reduction of max(0, margin + d(a, p) - d(a, n)); with ``swap`` of min(d(a, n), d(p, n)) in its place.

    The call ``unbatched`` has one triplet.
    """
    anchor, positive, negative = inputs['anchor'], inputs['positive'], inputs['negative']
    losses = np.zeros(anchor.shape[:-1])
    for n in np.ndindex(losses.shape):
        to_negative = _distance(anchor[n], negative[n], options)
        if options['swap']:
            to_negative = np.minimum(to_negative, _distance(positive[n], negative[n], options))
        losses[n] = np.maximum(options['margin'] + _distance(anchor[n], positive[n], options) - to_negative, 0)
    return reduce_as_torch(losses, options)


def _distance(x: Array, y: Array, options: Options) -> float:
    """d(x, y) = (Σ |x - y + eps|^p)^(1/p), or the largest difference for p = inf."""
    difference = np.abs(x - y + options['eps'])
    if np.isinf(options['p']):
        return float(difference.max())
    return float((difference ** options['p']).sum() ** (1 / options['p']))
