"""Gradient harmonising regression loss."""

from collections.abc import Mapping

import numpy as np

from lossreg.oracles.detection.ghmc import equal_edges, finish, harmonised
from lossreg.oracles.reference import Array, Inputs, Options


@np.errstate(all='ignore')
def ghmr(call: str, inputs: Inputs, options: Options) -> Mapping[str, Array]:
    """loss = Σ T/(M S_b) (√(d² + μ²) - μ) over T + EPS, with the density S_b of the bin of |d| / √(d² + μ²).

    d = x - t; T is the sum of the weights, at least 1. An element counts where its weight is above 0.
    """
    label_weight, mu = inputs['label_weight'], options['mu']
    counted = label_weight > 0
    d = inputs['pred'] - inputs['target']
    root = np.sqrt(d**2 + mu**2)
    number = max(float(label_weight.sum()), 1.0)
    edges = equal_edges(options['bins'], 1e3)
    weights, density = harmonised(np.abs(d) / root, counted, edges, number, inputs, options)
    return finish(np.where(counted, weights * (root - mu), 0.0), number, density, options)
