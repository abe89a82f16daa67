"""Triplet loss of given triplets."""

import numpy as np

from lossreg.oracles.reference import Array, Inputs, Options, reduce


@np.errstate(all='ignore')
def offline_triplet_loss(call: str, inputs: Inputs, options: Options) -> Array:
    """loss = reduction of max(0, |a - p|² - |a - n|² + margin)."""
    losses = np.zeros(len(inputs['anchor']))
    for i, (a, p, n) in enumerate(zip(inputs['anchor'], inputs['positive'], inputs['negative'], strict=True)):
        losses[i] = np.maximum(((a - p) ** 2).sum() - ((a - n) ** 2).sum() + options['margin'], 0.0)
    return reduce(losses, options)
