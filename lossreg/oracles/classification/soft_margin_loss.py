"""Soft margin loss."""

import numpy as np

from lossreg.oracles.elementwise import log_sigmoid, torch_reduce
from lossreg.oracles.reference import Array, Inputs, Options


@np.errstate(all='ignore')
def soft_margin_loss(call: str, inputs: Inputs, options: Options) -> Array:
    """loss = reduction of log(1 + exp(-t x)) = -log σ(t x)."""
    return torch_reduce(-log_sigmoid(inputs['target'] * inputs['input']), options)
