"""Binary cross-entropy of probabilities."""

import numpy as np

from lossreg.oracles.reference import Array, Inputs, Options, reduce_as_torch, weighted


@np.errstate(all='ignore')
def bce_loss(call: str, inputs: Inputs, options: Options) -> Array:
    """loss = reduction of -w (t log p + (1 - t) log(1 - p)), each logarithm at least -100, as in torch."""
    p, t = inputs['input'], inputs['target']
    log_p, log_q = np.maximum(np.log(p), -100.0), np.maximum(np.log1p(-p), -100.0)
    return reduce_as_torch(weighted(-(t * log_p + (1 - t) * log_q), options['weight']), options)
