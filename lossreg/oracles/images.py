"""Helpers of the oracles of image losses: mmagic's means."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import ArrayLike

from lossreg.oracles.reference import Array, Options, weighted

EPS = 1e-12  # added by mmagic to the sum of the weights


def reduce_images(losses: Array, weight: ArrayLike | None, options: Options) -> Array:
    """loss_weight times w · loss ('none'), their sum, or their mean, with weights a weighted mean.

    The weighted mean is Σ w · loss / (Σ w + EPS); with 'sample_wise' it is taken per sample, then over the samples.
    """
    reduction, factor = options['reduction'], options['loss_weight']
    if weight is not None:
        weight = np.broadcast_to(np.asarray(weight, np.float64), losses.shape)
    losses = weighted(losses, weight)
    if reduction == 'none':
        return np.asarray(factor * losses)
    if reduction == 'sum':
        return np.asarray(factor * losses.sum())
    if weight is None:
        mean = losses.mean() if losses.size else 0.0
    elif options.get('sample_wise'):
        means = [sample.sum() / (w.sum() + EPS) for sample, w in zip(losses, weight, strict=True)]
        mean = np.mean(means) if means else 0.0
    else:
        mean = losses.sum() / (weight.sum() + EPS)
    return np.asarray(factor * mean)


def neighbours(image: Array, row: int, column: int) -> Iterator[tuple[int, int, float]]:
    """The 3 x 3 neighbourhood of a pixel of an image (H, W): offsets and values, 0 outside."""
    for i in (-1, 0, 1):
        for j in (-1, 0, 1):
            inside = 0 <= row + i < image.shape[0] and 0 <= column + j < image.shape[1]
            yield i, j, float(image[row + i, column + j]) if inside else 0.0
