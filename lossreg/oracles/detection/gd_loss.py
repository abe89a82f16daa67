"""Distances of two rotated boxes as Gaussians."""

import math

import numpy as np

from lossreg.oracles.gaussians import kl_divergence, mean_and_axes, per_pair, wasserstein
from lossreg.oracles.reference import Array, Inputs, Options


@np.errstate(all='ignore')
def gd_loss(call: str, inputs: Inputs, options: Options) -> Array:
    """loss = reduction of w · f(D), or of w · (1 - 1 / (tau + f(D))) for tau of at least 1.

    D is the Wasserstein distance, divided by twice the geometric mean of the four standard deviations if normalised; or
    a divergence: KL(t || p), the mean of both directions, the larger or the smaller. Arguments of roots are at least
    1e-7, and so is det S_p · det S_t.
    """
    kind, alpha = options['loss_type'], options['alpha']

    def root(x: float) -> float:
        return math.sqrt(np.maximum(x, 1e-7))

    def rooted(x: float) -> float:
        return root(x) if options['sqrt'] else x

    def loss(a: Array, b: Array) -> float:
        p, t = (mean_and_axes(box, options['representation']) for box in (a, b))
        forwards, backwards = kl_divergence(p, t, alpha), kl_divergence(t, p, alpha)
        if kind == 'gwd':
            distance, volume = wasserstein(p, t, alpha, least=1e-7)
            d = root(distance) / (2 * volume**0.25 if options['normalize'] else 1)
        else:
            d = {
                'kld': rooted(forwards),
                'jd': rooted((forwards + backwards) / 2),
                'kld_symmax': np.maximum(rooted(forwards), rooted(backwards)),
                'kld_symmin': np.minimum(rooted(forwards), rooted(backwards)),
            }[kind]
        d = {'log1p': np.log1p(d), 'sqrt': root(d), 'none': d}[options['fun']]
        return float(1 - 1 / (options['tau'] + d) if options['tau'] >= 1 else d)

    return per_pair(inputs, options, loss)
