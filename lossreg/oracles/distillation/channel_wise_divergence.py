"""Channel-wise divergence."""

import numpy as np

from lossreg.oracles.reference import Array, Inputs, Options, log_softmax, times


@np.errstate(all='ignore')
def channel_wise_divergence(call: str, inputs: Inputs, options: Options) -> Array:
    """loss = loss_weight · τ² · mean over samples and channels of Σ_i t_i (log t_i - log s_i), i over the pixels.

    s, t = softmax_i(preds / τ) in each channel.
    """
    student, teacher, tau = inputs['preds_S'], inputs['preds_T'], options['tau']
    samples, channels = student.shape[:2]
    total = 0.0
    for n, c in np.ndindex(samples, channels):
        log_s = log_softmax(student[n, c].ravel() / tau)
        log_t = log_softmax(teacher[n, c].ravel() / tau)
        total += float((times(np.exp(log_t), log_t) - times(np.exp(log_t), log_s)).sum())
    count = samples * channels
    return np.asarray(options['loss_weight'] * tau**2 * total / count if count else 0.0)
