"""Multi-label soft margin loss: binary cross-entropy, averaged over classes."""

import numpy as np

from lossreg.oracles.reference import Array, Inputs, Options, log_sigmoid, reduce_as_torch, times


@np.errstate(all='ignore')
def multi_label_soft_margin_loss(call: str, inputs: Inputs, options: Options) -> Array:
    """loss_n = -1/C Σ_k w_k (t_nk log σ(x_nk) + (1 - t_nk) log σ(-x_nk)). Where w_k is 0, nothing counts."""
    x, t = inputs['input'], inputs['target']
    classes = x.shape[-1]
    weight = np.ones(classes) if options['weight'] is None else options['weight']
    losses = np.zeros(x.shape[:-1])
    for i in np.ndindex(x.shape):
        w = weight[i[-1]]
        if w == 0:
            continue
        logit, p = float(x[i]), float(t[i])
        log_likelihood = times(p, log_sigmoid(logit)) + times(1 - p, log_sigmoid(-logit))
        losses[i[:-1]] -= w * log_likelihood / classes
    return reduce_as_torch(losses, options)
