"""Distances of two rotated boxes as Gaussians, in the form of mmrotate's first version."""

import math

import numpy as np

from lossreg.oracles.gaussians import bhattacharyya, kl_divergence, mean_and_axes, per_pair, wasserstein
from lossreg.oracles.reference import Array, Inputs, Options


@np.errstate(all='ignore')
def gd_loss_v1(call: str, inputs: Inputs, options: Options) -> Array:
    """loss = reduction of w · (1 - 1 / (tau + f(D))); for 'gwd' without a named f, of w · log(1 + sqrt(D) / scale).

    D, at least 1e-6, is the squared Wasserstein distance, twice KL(p || t), or the Bhattacharyya distance. The scale is
    twice the geometric mean of the four standard deviations, each at least 1e-7.
    """
    kind, fun = options['loss_type'], options['fun']

    def loss(a: Array, b: Array) -> float:
        p, t = mean_and_axes(a), mean_and_axes(b)
        squared, volume = wasserstein(p, t, alpha=1.0, least=0.0)
        d = np.maximum({'gwd': squared, 'kld': 2 * kl_divergence(t, p), 'bcd': bhattacharyya(p, t)}[kind], 1e-6)
        if kind == 'gwd' and fun == '':
            return float(np.log1p(math.sqrt(d) / (2 * np.maximum(volume**0.25, 1e-7))))
        plain = d if kind == 'bcd' else np.log1p(d)
        return float(1 - 1 / (options['tau'] + {'sqrt': math.sqrt(d), 'log1p': np.log1p(d), '': plain}[fun]))

    return per_pair(inputs, options, loss)
