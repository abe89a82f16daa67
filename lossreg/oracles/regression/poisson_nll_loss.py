"""Negative log-likelihood of Poisson counts."""

import numpy as np

from lossreg.oracles.reference import Array, Inputs, Options, reduce_as_torch, times


@np.errstate(all='ignore')
def poisson_nll_loss(call: str, inputs: Inputs, options: Options) -> Array:
    """loss = reduction of λ - t log λ [+ log t! ≈ t log t - t + log(2πt)/2 where t > 1, with ``full``].

    λ = e^x with ``log_input``; without, λ = x, and log λ = log(x + eps).
    """
    x, t = inputs['input'], inputs['target']
    rate, log_rate = (np.exp(x), x) if options['log_input'] else (x, np.log(x + options['eps']))
    losses = rate - times(t, log_rate)
    if options['full']:
        losses = losses + np.where(t > 1, t * np.log(t) - t + np.log(2 * np.pi * t) / 2, 0.0)
    return reduce_as_torch(losses, options)
