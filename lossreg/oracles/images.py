"""What oracles of images share: mmagic's means."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import ArrayLike

from lossreg.oracles.reference import Array, Options, weighted

EPS = 1e-12  # added by mmagic to the sum of the weights


def reduce_images(losses: Array, weight: ArrayLike | None, options: Options) -> Array:
    """loss_weight times w · loss ('none'), their sum, or their mean, which is over the weights where there are any.

    The weighted mean is Σ w · loss / (Σ w + EPS), with 'sample_wise' that of each sample, averaged over the samples.
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
    """The nine pixels around one of an image (H, W), itself among them: offsets and values, 0 outside."""
    for i in (-1, 0, 1):
        for j in (-1, 0, 1):
            inside = 0 <= row + i < image.shape[0] and 0 <= column + j < image.shape[1]
            yield i, j, float(image[row + i, column + j]) if inside else 0.0
