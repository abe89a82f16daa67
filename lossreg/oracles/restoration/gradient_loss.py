"""Absolute error of Sobel gradients."""

import numpy as np

from lossreg.oracles.images import neighbours, reduce_images
from lossreg.oracles.reference import Array, Inputs, Options

ACROSS = {(-1, -1): 1, (0, -1): 2, (1, -1): 1, (-1, 1): -1, (0, 1): -2, (1, 1): -1}
DOWN = {(-1, -1): 1, (-1, 0): 2, (-1, 1): 1, (1, -1): -1, (1, 0): -2, (1, 1): -1}
"""Coefficients by the row and column offset of the neighbour."""


@np.errstate(all='ignore')
def gradient_loss(call: str, inputs: Inputs, options: Options) -> Array:
    """loss = reduction of w · (|Δ across| + |Δ down|), Δ the error of the horizontal and the vertical gradient."""
    x, t = inputs['pred'], inputs['target']
    losses = np.zeros(x.shape)
    for n, c, i, j in np.ndindex(x.shape):
        for kernel in (ACROSS, DOWN):
            losses[n, c, i, j] += abs(_gradient(x[n, c], i, j, kernel) - _gradient(t[n, c], i, j, kernel))
    return reduce_images(losses, inputs.get('weight'), options)


def _gradient(image: Array, row: int, column: int, kernel: dict[tuple[int, int], int]) -> float:
    around = neighbours(image, row, column)
    return sum(kernel[i, j] * value for i, j, value in around if (i, j) in kernel)
