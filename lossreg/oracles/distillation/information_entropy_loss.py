"""Entropy of the mean prediction."""

import numpy as np

from lossreg.oracles.reference import Array, Inputs, Options, log_softmax, times


@np.errstate(all='ignore')
def information_entropy_loss(call: str, inputs: Inputs, options: Options) -> Array:
    """loss = loss_weight · Σ_k p_k log10 p_k, p the mean over the samples of softmax(x)."""
    logits = inputs['preds_T']
    p = np.zeros(logits.shape[1])
    for x in logits:
        p += np.exp(log_softmax(x)) / len(logits)
    return np.asarray(options['loss_weight'] * times(p, np.log10(p)).sum())
