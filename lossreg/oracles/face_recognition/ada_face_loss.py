"""AdaFace: a margin that depends on the feature's norm, a proxy of image quality."""

from collections.abc import Mapping

import numpy as np

from lossreg.oracles.face_recognition.modified_softmax_loss import cosine
from lossreg.oracles.reference import Array, Inputs, Options, log_softmax, reduce

EPS = 1e-3


@np.errstate(all='ignore')
def ada_face_loss(call: str, inputs: Inputs, options: Options) -> Mapping[str, Array]:
    """loss = reduction of -log softmax_j(s z_ij) at j = y_i.

    z_ij = cos θ_ij in [-0.999, 0.999], but z_iy = cos(θ_iy - m q_i) - (m + m q_i), with the angle clamped to [0.001, π
    - 0.001]. The quality q_i = h (|x_i| - μ')/(σ' + 0.001) is clamped to [-1, 1], without gradient; its norm |x_i| is
    clamped to [0.001, 100]. μ' and σ' move by t_alpha towards the batch's mean and standard deviation (n - 1). An empty
    batch changes neither, a single sample does not change σ.
    """
    features, labels, weight, m = inputs['features'], inputs['label'], inputs['weight'], options['m']
    alpha, mean, std = options['t_alpha'], inputs['batch_mean'], inputs['batch_std']
    norms = np.clip(np.sqrt((features**2).sum(axis=1)), 1e-3, 100.0)
    if len(norms) > 0:
        mean = alpha * norms.mean() + (1 - alpha) * mean
    if len(norms) > 1:
        std = alpha * norms.std(ddof=1) + (1 - alpha) * std
    quality = inputs.get('held_quality', np.clip(options['h'] * (norms - mean) / (std + EPS), -1.0, 1.0))
    losses = np.zeros(len(features))
    for i, y in enumerate(labels):
        z = np.clip([cosine(features[i], w) for w in weight], -1 + EPS, 1 - EPS)
        theta = np.clip(np.arccos(z[y]) - m * quality[i], EPS, np.pi - EPS)
        z[y] = np.cos(theta) - (m + m * quality[i])
        losses[i] = -log_softmax(options['s'] * z)[y]
    return {
        'loss': reduce(losses, options),
        'next_batch_mean': mean,
        'next_batch_std': std,
        'held_quality': quality,
    }
