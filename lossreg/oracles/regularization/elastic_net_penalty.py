"""Elastic net penalty."""

import numpy as np

from lossreg.oracles.reference import Array, Inputs, Options


def elastic_net_penalty(call: str, inputs: Inputs, options: Options) -> Array:
    """loss = loss_weight · (l1 Σ|x| + l2 Σx²)."""
    absolute = squares = 0.0
    for x in inputs['input'].ravel():
        absolute += abs(x)
        squares += x**2
    return np.asarray(options['loss_weight'] * (options['l1'] * absolute + options['l2'] * squares), dtype=np.float64)
