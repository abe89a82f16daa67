"""Varifocal loss, called as in mmpose."""

import numpy as np

from lossreg.oracles.reference import Array, Inputs, Options, log_sigmoid, reduce, times


@np.errstate(all='ignore')
def vari_focal_loss(call: str, inputs: Inputs, options: Options) -> Array:
    """loss = reduction of w β BCE(σ(clip(x, -10, 10)), t), with β = t above 1e-4, and α σ(x)^γ + t up to there.

    Losses that are not finite count as 0. w has one entry per sample, or one per element.
    """
    output, target, weight = inputs['output'], inputs['target'], inputs.get('target_weight')
    losses = np.zeros(output.shape)
    for n, k in np.ndindex(output.shape):
        x, t = float(output[n, k]), float(target[n, k])
        w = 1.0 if weight is None else float(weight[n] if weight.ndim == 1 else weight[n, k])
        beta = t
        if not t > 1e-4:
            beta += options['alpha'] * float(np.power(np.exp(log_sigmoid(x)), options['gamma']))
        y = np.clip(x, -10.0, 10.0)
        loss = -w * beta * (times(t, log_sigmoid(y)) + times(1 - t, log_sigmoid(-y)))
        losses[n, k] = loss if np.isfinite(loss) else 0.0
    return reduce(losses, options)
