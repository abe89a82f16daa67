"""MPJPE, scale-normalised MPJPE and velocity error."""

import numpy as np

from lossreg.oracles.reference import Array, Inputs, Options, weighted


@np.errstate(all='ignore')
def mpjpe_velocity_joint_loss(call: str, inputs: Inputs, options: Options) -> Array:
    """loss = loss_weight · (P + λ_scale S + λ_velocity V), each a mean of distances over samples, frames and joints.

    P is the distance from w x to w t, S that from w s x to w t. The frame's scale s = Σ x·t / Σ x·x over its joints
    with w ≠ 0 brings x nearest to t (0 where all x are 0). V is the distance between velocities, the differences of
    successive frames, weighted by the smaller of their weights.
    """
    output, target = inputs['output'], inputs['target']
    samples, frames, joints, _ = output.shape
    weight = np.ones((samples, frames, joints, 1))
    if options['use_target_weight']:
        weight = np.broadcast_to(inputs['target_weight'], weight.shape)
    positions, scaled, velocities = [], [], []
    for n, f in np.ndindex(samples, frames):
        w = weight[n, f]
        x, t = (np.where(w == 0, 0.0, a[n, f]) for a in (output, target))
        length = (x * x).sum()
        scale = (x * t).sum() / length if length != 0 else 0.0
        positions += [_length(weighted(x[k] - t[k], w[k])) for k in range(joints)]
        scaled += [_length(weighted(scale * x[k] - t[k], w[k])) for k in range(joints)]
        if f > 0:
            before = np.minimum(w, weight[n, f - 1])
            moved = (output[n, f] - output[n, f - 1]) - (target[n, f] - target[n, f - 1])
            velocities += [_length(weighted(moved[k], before[k])) for k in range(joints)]
    loss = (
        _mean(positions) + options['lambda_scale'] * _mean(scaled) + options['lambda_3d_velocity'] * _mean(velocities)
    )
    return np.asarray(options['loss_weight'] * loss)


def _length(x: Array) -> float:
    return float(np.sqrt((x**2).sum()))


def _mean(distances: list[float]) -> float:
    return sum(distances) / len(distances) if distances else 0.0
