"""Residual log-likelihood estimation (RLE)."""

import math

import numpy as np

from lossreg.oracles.reference import Array, Inputs, Options, log_sigmoid


@np.errstate(all='ignore')
def rle_loss(call: str, inputs: Inputs, options: Options) -> Array:
    """loss = Σ w (log σ - log φ(e) - log q(e)), over N with ``size_average``; e = (x - t) / (σ + 1e-9), σ = sigmoid(s).

    -log q = log 2σ + |e| ('laplace'), log √(2π)σ + e²/2 ('gaussian'), or 0 without ``residual``. A weight is given per
    keypoint or per coordinate; φ is the joint density of both coordinates, counted for each.
    """
    pred, sigma, target, weight = inputs['pred'], inputs['sigma'], inputs['target'], inputs.get('target_weight')
    samples, keypoints = pred.shape[:2]
    summed = 0.0
    for n, k in np.ndindex(samples, keypoints):
        w = np.ones(2) if weight is None else weight[n, k] * np.ones(2)
        if not w.any():
            continue
        log_sigma = log_sigmoid(sigma[n, k])
        e = (pred[n, k] - target[n, k]) / (np.exp(log_sigma) + 1e-9)
        log_q = np.zeros(2)
        if options['residual']:
            laplace = -(math.log(2) + log_sigma + np.abs(e))
            gauss = -(math.log(2 * math.pi) / 2 + log_sigma + e**2 / 2)
            log_q = laplace if options['q_distribution'] == 'laplace' else gauss
        summed += float(np.sum(w * (log_sigma - _log_density(e, inputs) - log_q)))
    if options['size_average']:
        summed = summed / samples if samples else 0.0
    return np.asarray(summed)


def _log_density(x: Array, parameters: Inputs) -> float:
    """log N(z; 0, 1) - Σ s, with z computed from x by the six layers from last to first.

    Layer i changes coordinate 0 for even i and 1 for odd i: z' = (z - t) exp(-s); s and t depend on the other only.
    """
    z, log_det = np.array(x, np.float64), 0.0
    for i in reversed(range(6)):
        moved = i % 2
        seen = np.where(np.arange(2) == moved, 0.0, z)
        s = np.tanh(_network(f's.{i}', seen, parameters))[moved]
        t = _network(f't.{i}', seen, parameters)[moved]
        z[moved] = (z[moved] - t) * np.exp(-s)
        log_det -= s
    return float(-np.sum(z**2) / 2 - math.log(2 * math.pi) + log_det)


def _network(name: str, x: Array, parameters: Inputs) -> Array:
    """Linear maps 0, 2 and 4, with max(x, x / 100) before the last two."""
    for layer in (0, 2, 4):
        if layer:
            x = np.maximum(x, 0.01 * x)
        place = f'flow_model.{name}.{layer}'
        x = np.sum(parameters[f'{place}.weight'] * x, axis=1) + parameters[f'{place}.bias']
    return x
