"""Transferal perceptual loss."""

import math

import numpy as np

from lossreg.oracles.reference import Array, Inputs, Options, log_sigmoid


@np.errstate(all='ignore')
def transferal_perceptual_loss(call: str, inputs: Inputs, options: Options) -> Array:
    """loss = Σ over the maps of the mean of (s M - s T)², or of |s M - s T|; s is 1 in the call ``textures``."""
    loss = 0.0
    for i in range(3):
        soft = np.ones(()) if call == 'textures' else _soft(inputs['soft_attention'], 2**i)
        error = soft * inputs[f'map_{i}'] - soft * inputs[f'texture_{i}']
        if error.size:
            loss += (np.abs(error) if options['criterion'] == 'l1' else error**2).mean()
    return np.asarray(options['loss_weight'] * loss)


def _soft(attention: Array, factor: int) -> Array:
    """The sigmoid of the attention, or, where it is enlarged, the attention itself."""
    if factor == 1:
        return np.exp(log_sigmoid(attention))
    return _enlarged(_enlarged(attention, factor).swapaxes(2, 3), factor).swapaxes(2, 3)


def _enlarged(x: Array, factor: int) -> Array:
    """Cubic convolution along the last axis, with the end values repeated."""
    size = x.shape[-1]
    result = np.zeros((*x.shape[:-1], size * factor))
    for new in range(size * factor):
        place = (new + 0.5) / factor - 0.5
        for old in range(math.floor(place) - 1, math.floor(place) + 3):
            result[..., new] += _kernel(abs(place - old)) * x[..., min(max(old, 0), size - 1)]
    return result


def _kernel(d: float) -> float:
    """Keys' cubic kernel with a = -3/4."""
    a = -0.75
    if d <= 1:
        return (a + 2) * d**3 - (a + 3) * d**2 + 1
    return a * d**3 - 5 * a * d**2 + 8 * a * d - 4 * a
