"""Consistency of rotated boxes up to swapping width and height."""

import numpy as np

from lossreg.oracles.reference import Array, Inputs, Options


@np.errstate(all='ignore')
def h2rbox_consistency_loss(call: str, inputs: Inputs, options: Options) -> Array:
    """loss = L_c(centres) + min(L_s(w x h) + L_a(sin Δ), L_s(h x w) + L_a(cos Δ)), each L by its own oracle."""
    pred, target, weight = inputs['pred'], inputs['target'], inputs['weight']

    def part(name: str, a: Array, b: Array) -> float:
        own = {**options[name], 'reduction': options['reduction']}
        given = {**inputs, 'pred': a, 'target': b, 'weight': np.broadcast_to(weight, a.shape[::-1]).T}
        if name == 'shape_loss_cfg':
            given['weight'] = weight
        return float(own['oracle']('boxes' if name == 'shape_loss_cfg' else 'vectors', given, own))

    def upright(sizes: Array) -> Array:
        return np.concatenate([-sizes, sizes], 1)

    turn = pred[:, 4] - target[:, 4]
    either = [
        part('shape_loss_cfg', upright(sizes), upright(target[:, 2:4])) + part('angle_loss_cfg', angle, 0 * angle)
        for sizes, angle in ((pred[:, 2:4], np.sin(turn)), (pred[:, 3:1:-1], np.cos(turn)))
    ]
    whole = part('center_loss_cfg', pred[:, :2], target[:, :2]) + np.min(either)
    return np.asarray(options['loss_weight'] * whole, np.float64)
