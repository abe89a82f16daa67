"""Binary cross-entropy, called as in mmpose."""

import numpy as np

from lossreg.oracles.reference import Array, Inputs, Options, log_sigmoid, reduce, times


@np.errstate(all='ignore')
def pose_bce_loss(call: str, inputs: Inputs, options: Options) -> Array:
    """loss = reduction of -w (t log p + (1 - t) log(1 - p)); w has one entry per sample, or one per element.

    p = σ(output), or with ``use_sigmoid`` the output itself, whose logarithms are at least -100; NaN outside [0, 1].
    """
    output, target, weight = inputs['output'], inputs['target'], inputs.get('target_weight')
    losses = np.zeros(output.shape)
    for n, k in np.ndindex(output.shape):
        w = 1.0
        if weight is not None:
            w = float(weight[n] if weight.ndim == 1 else weight[n, k])
        if w == 0:
            continue
        x, t = float(output[n, k]), float(target[n, k])
        if not options['use_sigmoid']:
            log_p, log_q = float(log_sigmoid(x)), float(log_sigmoid(-x))
        elif 0 <= x <= 1:
            log_p, log_q = np.maximum(np.log(x), -100.0), np.maximum(np.log1p(-x), -100.0)
        else:
            log_p = log_q = np.nan
        losses[n, k] = -w * (times(t, log_p) + times(1 - t, log_q))
    return reduce(losses, options)
