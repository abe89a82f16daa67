"""Wing loss of coordinates."""

import numpy as np

from lossreg.oracles.pose.pose_l1_loss import weighted_errors
from lossreg.oracles.reference import Array, Inputs, Options


@np.errstate(all='ignore')
def wing_loss(call: str, inputs: Inputs, options: Options) -> Array:
    """loss = loss_weight · 1/N · Σ_nkd l, with l = ω log(1 + d / ε) where d < ω, else d - C, and d = |w (x - t)|.

    C = ω - ω log(1 + ω / ε) makes the two meet at d = ω.
    """
    omega, epsilon = options['omega'], options['epsilon']
    c = omega - omega * np.log(1 + omega / epsilon)
    total = 0.0
    for d in np.abs(weighted_errors(inputs, options)).flat:
        total += omega * np.log(1 + d / epsilon) if d < omega else d - c
    samples = len(inputs['output'])
    return np.asarray(options['loss_weight'] * total / samples if samples else 0.0)
