"""Balanced L1 loss."""

import math

import numpy as np

from lossreg.oracles.reference import Array, Inputs, Options, reduce, weighted


@np.errstate(all='ignore')
def balanced_l1_loss(call: str, inputs: Inputs, options: Options) -> Array:
    """loss = reduction of w ℓ; ℓ = α/b (b d + 1) log(b d / β + 1) - α d where d < β, γ d + γ/b - α β elsewhere.

    d = |x - t| and b = exp(γ / α) - 1.
    """
    d, alpha, gamma, beta = np.abs(inputs['pred'] - inputs['target']), *(options[k] for k in ('alpha', 'gamma', 'beta'))
    b = math.expm1(gamma / alpha)
    small = alpha / b * (b * d + 1) * np.log1p(b * d / beta) - alpha * d
    losses = np.where(d < beta, small, gamma * d + gamma / b - alpha * beta)
    return reduce(weighted(losses, inputs.get('weight')), options, inputs.get('avg_factor'))
