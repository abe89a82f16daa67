"""Label smoothing over the other classes."""

import numpy as np

from lossreg.oracles.reference import Array, Inputs, Options, log_softmax, times


@np.errstate(all='ignore')
def seed_label_smooth_loss(call: str, inputs: Inputs, options: Options) -> Array:
    """loss = -1/N Σ_n Σ_k s_k log p_k, with s_k = 1 - s at the class and s/(C - 1) at each other, p = softmax(x)."""
    scores, labels, smoothing = inputs['input'], inputs['target'], options['smoothing']
    total = 0.0
    for x, y in zip(scores, labels, strict=True):
        for k, log_p in enumerate(log_softmax(x)):
            total -= float(times(1 - smoothing if k == y else smoothing / (len(x) - 1), log_p))
    return np.asarray(total / max(len(scores), 1))
