"""Attention transfer."""

import numpy as np

from lossreg.oracles.reference import Array, Inputs, Options


@np.errstate(all='ignore')
def at_loss(call: str, inputs: Inputs, options: Options) -> Array:
    """loss = loss_weight · mean of (a_S - a_T)², with a = q / |q| in each sample, q the mean over channels of x²."""
    total, count = 0.0, 0
    for s, t in zip(inputs['s_feature'], inputs['t_feature'], strict=True):
        squares = (_attention(s) - _attention(t)) ** 2
        total, count = total + float(squares.sum()), count + squares.size
    return np.asarray(options['loss_weight'] * total / count if count else 0.0)


def _attention(x: Array) -> Array:
    q = (x**2).mean(0)
    result: Array = q / np.maximum(np.sqrt((q**2).sum()), 1e-12)
    return result
