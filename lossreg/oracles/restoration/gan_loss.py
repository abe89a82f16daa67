"""Adversarial losses."""

import math

import numpy as np

from lossreg.oracles.reference import Array, Inputs, Options, log_sigmoid, times


@np.errstate(all='ignore')
def gan_loss(call: str, inputs: Inputs, options: Options) -> Array:
    """loss = mean of ℓ(x), times loss_weight in the calls ``generator…``; y is the real or fake label."""
    x, kind = inputs['input'], options['gan_type']
    real = call.removesuffix('_maps') in ('generator', 'discriminator_real')
    trains_generator = call.startswith('generator')
    y = options['real_label_val' if real else 'fake_label_val']
    if kind == 'vanilla':
        losses = -(times(y, log_sigmoid(x)) + times(1 - y, log_sigmoid(-x)))
    elif kind == 'lsgan':
        losses = (x - y) ** 2
    elif kind == 'l1':
        losses = np.abs(x - y)
    elif kind == 'hinge':
        losses = -x if trains_generator else np.maximum(0.0, 1 - x if real else 1 + x)
    elif kind == 'wgan':
        losses = -x if real else x
    else:
        losses = _soft_mask_losses(x, inputs['mask'], y, blurred=not trains_generator and not real)
        if trains_generator:
            # the mean of m / mean(m); with a mask of zeros nothing counts
            losses = losses * (inputs['mask'].sum() / inputs['mask'].sum() if inputs['mask'].any() else 0.0)
    factor = options['loss_weight'] if trains_generator else 1.0
    return np.asarray(factor * losses.mean() if losses.size else 0.0)


def _soft_mask_losses(x: Array, mask: Array, y: float, blurred: bool) -> Array:
    """(x - y)², with x resized to the mask; y may be the mask, blurred."""
    losses = np.zeros(mask.shape)
    for n, c, i, j in np.ndindex(mask.shape):
        target = _blurred(mask[n, c], i, j) if blurred else y
        losses[n, c, i, j] = (_resized(x[n, c], i, j, mask.shape[2:]) - target) ** 2
    return losses


def _resized(image: Array, row: int, column: int, size: tuple[int, ...]) -> float:
    """Bilinear interpolation at a pixel of an image of another size, with aligned corners."""
    value = 0.0
    for i, share in _two_nearest(row, size[0], image.shape[0]):
        for j, other_share in _two_nearest(column, size[1], image.shape[1]):
            value += float(times(share * other_share, image[i, j]))
    return value


def _two_nearest(at: int, size: int, old_size: int) -> list[tuple[int, float]]:
    place = at * (old_size - 1) / (size - 1) if size > 1 else 0.0
    first = math.floor(place)
    return [(first, 1 - (place - first)), (min(first + 1, old_size - 1), place - first)]


def _blurred(image: Array, row: int, column: int) -> float:
    """Gaussian blur of 71 x 71 pixels, σ = 10, with zeros around the image."""
    value, weights = 0.0, sum(math.exp(-k * k / 200) for k in range(-35, 36)) ** 2
    for i, j in np.ndindex(image.shape):
        if abs(i - row) <= 35 and abs(j - column) <= 35:
            value += math.exp(-((i - row) ** 2 + (j - column) ** 2) / 200) * float(image[i, j])
    return value / weights
