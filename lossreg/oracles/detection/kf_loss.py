"""Kalman-filter IoU of two rotated boxes."""

import math

import numpy as np

from lossreg.oracles.gaussians import mean_and_axes, overlap
from lossreg.oracles.reference import Array, Inputs, Options, reduce

EPSILON = 1e-6


@np.errstate(all='ignore')
def kf_loss(call: str, inputs: Inputs, options: Options) -> Array:
    """loss = reduction of w · max(Σ_xy smooth L1 loss + f(K), 0), with K = V / (V_p + V_t - V + eps).

    V = 4 sqrt(det S), with det S = det S_p det S_t / det (S_p + S_t), at least eps. f(K) is 1 - K, exp(1 - K) - 1,
    or -log(max(K + eps, eps)).
    """
    weight, beta = inputs.get('weight'), options['beta']
    losses = np.zeros(len(inputs['pred']))
    for n in range(len(losses)):
        w = 1.0 if weight is None else weight[n].mean()
        if w == 0:
            continue
        centre = 0.0
        for distance in np.abs(inputs['pred'][n, :2] - inputs['target'][n, :2]):
            centre += distance**2 / (2 * beta) if distance < beta else distance - beta / 2
        k = _kf_iou(inputs['pred_decode'][n], inputs['targets_decode'][n])
        of_overlap = {
            'none': 1 - k,
            'ln': -np.log(np.maximum(k + EPSILON, EPSILON)),
            'exp': np.exp(1 - k) - 1,
        }[options['fun']]
        losses[n] = w * np.maximum(centre + of_overlap, 0.0)
    return reduce(losses, options, inputs.get('avg_factor'))


def _kf_iou(pred: Array, target: Array) -> float:
    p, t = mean_and_axes(pred), mean_and_axes(target)
    # det (S_p + S_t) = det S_p + det S_t + Σ_ij σ_i² τ_j² of axes i and j that are not parallel
    crossed = (np.outer(p[1], t[1]) ** 2 * (1 - overlap(p, t))).sum()
    det_p, det_t = np.prod(p[1]) ** 2, np.prod(t[1]) ** 2
    volume = 4 * math.sqrt(np.maximum(det_p * det_t / (det_p + det_t + crossed), EPSILON))
    return float(volume / (4 * np.prod(p[1]) + 4 * np.prod(t[1]) - volume + EPSILON))
