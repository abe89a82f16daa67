"""Soft margin loss."""

import numpy as np

from lossreg.oracles.reference import Array, Inputs, Options, log_sigmoid, reduce_as_torch


@np.errstate(all='ignore')
def soft_margin_loss(call: str, inputs: Inputs, options: Options) -> Array:
    """loss = reduction of log(1 + exp(-t x)) = -log σ(t x)."""
    return reduce_as_torch(-log_sigmoid(inputs['target'] * inputs['input']), options)
