"""Divergence of standardised logits."""

import numpy as np

from lossreg.oracles.reference import Array, Inputs, Options, log_softmax, times


@np.errstate(all='ignore')
def logit_standardization_loss(call: str, inputs: Inputs, options: Options) -> Array:
    """loss = loss_weight · τ² · mean over samples of Σ_k t_k (log t_k - log s_k), with s, t = softmax(z / τ).

    z = (x - mean) / (σ + 1e-7), σ² = Σ (x - mean)² / (C - 1), or 0 for a single class.
    """
    tau, total = options['tau'], 0.0
    for s, t in zip(inputs['preds_S'], inputs['preds_T'], strict=True):
        log_s, log_t = log_softmax(_standardised(s) / tau), log_softmax(_standardised(t) / tau)
        total += float((times(np.exp(log_t), log_t) - times(np.exp(log_t), log_s)).sum())
    return np.asarray(options['loss_weight'] * tau**2 * total / max(len(inputs['preds_S']), 1))


def _standardised(x: Array) -> Array:
    if (x == x[0]).all():
        return np.zeros(x.shape)
    result: Array = (x - x.mean()) / (x.std(ddof=1) + 1e-7)
    return result
