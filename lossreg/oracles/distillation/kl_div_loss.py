"""Kullback-Leibler divergence of log-probabilities."""

import numpy as np

from lossreg.oracles.reference import Array, Inputs, Options, reduce_as_torch, times


@np.errstate(all='ignore')
def kl_div_loss(call: str, inputs: Inputs, options: Options) -> Array:
    """loss = reduction of t (log t - x), with 0 log 0 = 0. With ``log_target`` the target is log t.

    ``batchmean`` is the sum over the size of the first dimension.
    """
    x, target = inputs['input'], inputs['target']
    t, log_t = (np.exp(target), target) if options['log_target'] else (target, np.log(target))
    losses = times(t, log_t) - times(t, x)
    if options['reduction'] == 'batchmean' and options['size_average'] is None and options['reduce'] is None:
        return np.asarray(losses.sum() / max(len(x), 1), dtype=np.float64)
    return reduce_as_torch(losses, options)
