"""Binary cross-entropy of logits."""

import numpy as np

from lossreg.oracles.reference import Array, Inputs, Options, log_sigmoid, reduce_as_torch, times, weighted


@np.errstate(all='ignore')
def bce_with_logits_loss(call: str, inputs: Inputs, options: Options) -> Array:
    """loss = reduction of -w (c t log σ(x) + (1 - t) log σ(-x)), with c = pos_weight."""
    x, t = inputs['input'], inputs['target']
    c = np.asarray(1.0 if options['pos_weight'] is None else options['pos_weight'], np.float64)
    losses = -(times(c * t, log_sigmoid(x)) + times(1 - t, log_sigmoid(-x)))
    return reduce_as_torch(weighted(losses, options['weight']), options)
