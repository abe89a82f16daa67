"""Cosine embedding loss of pairs."""

import numpy as np

from lossreg.oracles.reference import Array, Inputs, Options, reduce_as_torch


@np.errstate(all='ignore')
def cosine_embedding_loss(call: str, inputs: Inputs, options: Options) -> Array:
    """loss = reduction of 1 - cos(a, b) where y = 1, and of max(0, cos(a, b) - margin) where y = -1.

    cos(a, b) = a·b / sqrt((a·a + ε) (b·b + ε)), where ε is 1e-12 in float32, as in torch. The call ``unbatched``
    has one pair.
    """
    y, eps = inputs['target'], float(np.float32(1e-12))
    losses = np.zeros(y.shape)
    for n in np.ndindex(y.shape):
        a, b = inputs['input1'][n], inputs['input2'][n]
        cosine = (a * b).sum() / np.sqrt(((a * a).sum() + eps) * ((b * b).sum() + eps))
        alike, apart = 1 - cosine, np.maximum(cosine - options['margin'], 0)
        losses[n] = {1.0: alike, -1.0: apart}.get(float(y[n]), np.nan)
    return reduce_as_torch(losses, options)
