"""Adaptive wing loss of heatmaps."""

import numpy as np

from lossreg.oracles.reference import Array, Inputs, Options, weighted


@np.errstate(all='ignore')
def adaptive_wing_loss(call: str, inputs: Inputs, options: Options) -> Array:
    """loss = loss_weight · mean of l, with l = ω log(1 + (d / ε)^a) where d < θ, else A d - C.

    d = |w x - w t| and a = α - w t; A = ω · a (θ / ε)^(a - 1) / ε / (1 + (θ / ε)^a) is the slope at θ, and
    C = θ A - ω log(1 + (θ / ε)^a) makes the two meet there.
    """
    output, target = inputs['output'], inputs['target']
    alpha, omega, epsilon, theta = (options[name] for name in ('alpha', 'omega', 'epsilon', 'theta'))
    total = 0.0
    for n, k in np.ndindex(output.shape[:2]):
        weight = inputs['target_weights'][n, k] if options['use_target_weight'] else None
        d = np.abs(weighted(output[n, k] - target[n, k], weight))
        a = alpha - weighted(target[n, k], weight)
        # (θ / ε)^a itself would overflow where a is far below 0
        slope = omega * a / theta / (1 + (epsilon / theta) ** a)
        c = theta * slope - omega * np.logaddexp(0.0, a * np.log(theta / epsilon))
        total += np.where(d < theta, omega * np.log(1 + (d / epsilon) ** a), slope * d - c).sum()
    return np.asarray(options['loss_weight'] * total / output.size if output.size else 0.0)
