"""Weighted soft labels."""

from collections.abc import Mapping

import numpy as np

from lossreg.oracles.reference import Array, Inputs, Options, log_softmax, times


@np.errstate(all='ignore')
def wsld(call: str, inputs: Inputs, options: Options) -> Mapping[str, Array]:
    """loss = loss_weight · τ² · mean over samples of w · -Σ_k t_k log s_k, with s, t = softmax(x / τ).

    w = 1 - exp(log p_S / (-log p_T + 1e-7)), p = softmax(x) at the label. w is a constant for the gradient.
    """
    samples, tau = len(inputs['student']), options['tau']
    losses, weights = np.zeros(samples), np.zeros(samples)
    for n in range(samples):
        s, t, y = inputs['student'][n], inputs['teacher'][n], inputs['gt_labels'][n]
        weights[n] = 1 - np.exp(log_softmax(s)[y] / (-log_softmax(t)[y] + 1e-7))
        losses[n] = -times(np.exp(log_softmax(t / tau)), log_softmax(s / tau)).sum()
    weights = inputs.get('held_weight', weights)
    loss = (weights * losses).mean() if samples else 0.0
    return {'loss': np.asarray(options['loss_weight'] * tau**2 * loss), 'held_weight': weights}
