"""Focal loss of keypoint heatmaps."""

import numpy as np

from lossreg.oracles.pose.keypoint_mse_loss import pixel_weights
from lossreg.oracles.reference import Array, Inputs, Options, times, weighted


@np.errstate(all='ignore')
def focal_heatmap_loss(call: str, inputs: Inputs, options: Options) -> Array:
    """loss = loss_weight · 1/P · Σ w l, with P = Σ w over the pixels of target t = 1, or 1 where that is 0.

    l = (1 - x)^α · -log x where t = 1, (1 - t)^β · x^α · -log(1 - x) where t < 1, and 0 beyond. Each logarithm is at
    least -100.
    """
    output, target = inputs['output'], inputs['target']
    total = peaks = 0.0
    for n, k in np.ndindex(output.shape[:2]):
        x, t, w = output[n, k], target[n, k], pixel_weights(n, k, inputs, options)
        at_peak = times((1 - x) ** options['alpha'], -np.maximum(np.log(x), -100.0))
        elsewhere = times(x ** options['alpha'], -np.maximum(np.log1p(-x), -100.0))
        losses = np.where(t == 1, at_peak, np.where(t > 1, 0.0, (1 - t) ** options['beta'] * elsewhere))
        total += weighted(losses, w).sum()
        peaks += weighted((t == 1).astype(np.float64), w).sum()
    return np.asarray(options['loss_weight'] * total / (peaks if peaks != 0 else 1.0))
