"""DIST."""

import numpy as np

from lossreg.oracles.reference import Array, Inputs, Options, log_softmax


@np.errstate(all='ignore')
def dist_loss(call: str, inputs: Inputs, options: Options) -> Array:
    """loss = loss_weight · τ² · (w_inter · mean over samples of 1 - ρ(s_n, t_n) + w_intra · the same over classes).

    s, t = softmax(logits / τ), and ρ is the correlation, with 1e-8 added to the denominator.
    """
    tau = options['tau']
    s, t = inputs['logits_S'].copy(), inputs['logits_T'].copy()
    if not s.size:
        return np.asarray(0.0)
    for n in range(len(s)):
        s[n], t[n] = np.exp(log_softmax(s[n] / tau)), np.exp(log_softmax(t[n] / tau))
    inter = np.mean([1 - _correlation(a, b) for a, b in zip(s, t, strict=True)])
    intra = np.mean([1 - _correlation(a, b) for a, b in zip(s.T, t.T, strict=True)])
    loss = options['inter_loss_weight'] * inter + options['intra_loss_weight'] * intra
    return np.asarray(options['loss_weight'] * tau**2 * loss)


def _correlation(a: Array, b: Array) -> float:
    a, b = a - a.mean(), b - b.mean()
    return float((a @ b) / (np.sqrt(a @ a) * np.sqrt(b @ b) + 1e-8))
