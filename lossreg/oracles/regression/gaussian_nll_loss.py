"""Negative log-likelihood of a Gaussian."""

import numpy as np

from lossreg.oracles.reference import Array, Inputs, Options, reduce_as_torch


@np.errstate(all='ignore')
def gaussian_nll_loss(call: str, inputs: Inputs, options: Options) -> Array:
    """loss = reduction of (log v + (x - t)²/v)/2 [+ log(2π)/2, with ``full``], with v = max(var, eps).

    A negative variance gives NaN. In the call ``samples`` var has no last dimension; elsewhere one may be of size 1.
    """
    x, t, var = inputs['input'], inputs['target'], inputs['var']
    if call == 'samples':
        var = var[..., None]
    v = np.where(var < 0, np.nan, np.maximum(var, options['eps']))
    losses = (np.log(v) + (x - t) ** 2 / v) / 2
    if options['full']:
        losses = losses + np.log(2 * np.pi) / 2
    return reduce_as_torch(losses, options)
