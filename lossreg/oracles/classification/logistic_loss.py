"""Logistic loss of scores against signs."""

import numpy as np

from lossreg.oracles.reference import Array, Inputs, Options, log_sigmoid, reduce_as_torch


@np.errstate(all='ignore')
def logistic_loss(call: str, inputs: Inputs, options: Options) -> Array:
    """loss = reduction of log(1 + exp(-t s)) = -log σ(t s)."""
    s, t = inputs['input'], inputs['target']
    losses = np.zeros(s.shape)
    for n in np.ndindex(s.shape):
        losses[n] = -log_sigmoid(float(t[n] * s[n]))
    return reduce_as_torch(losses, options)
