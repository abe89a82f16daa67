"""Dice loss of whole heatmaps."""

import numpy as np

from lossreg.oracles.reference import Array, Inputs, Options


@np.errstate(all='ignore')
def seed_dice_loss(call: str, inputs: Inputs, options: Options) -> Array:
    """loss = Σ over heatmaps of 1 - 2 Σ w p t / (Σ w p + Σ w t + ε), sums over the batch; 0 where nothing counts."""
    target = _first(inputs['gt'])
    weight = _first(inputs['weights']) if 'weights' in inputs else np.ones(target.shape)
    counted = weight != 0
    if not counted.any():
        return np.zeros(())
    maps = [inputs['pred'][:, k] for k in range(2)] if options['two_heatmaps'] else [_first(inputs['pred'])]
    loss = 0.0
    for heatmap in maps:
        w, p, t = weight[counted], heatmap[counted], target[counted]
        loss += 1 - 2 * (w * p * t).sum() / ((w * p).sum() + (w * t).sum() + options['eps'])
    return np.asarray(loss)


def _first(x: Array) -> Array:
    """The first channel of (N, C, H, W), and (N, H, W) as it is."""
    return x[:, 0] if x.ndim == 4 else x
