"""Similarity-preserving distillation."""

import numpy as np

from lossreg.oracles.distillation.distance_wise_rkd import flat
from lossreg.oracles.reference import Array, Inputs, Options


@np.errstate(all='ignore')
def similarity_preserving_loss(call: str, inputs: Inputs, options: Options) -> Array:
    """loss = loss_weight · mean over all (i, j) of (g_S - g_T)², g_i = (x_i · x_j)_j scaled to length 1."""
    student, teacher = (_similarities(flat(inputs[name], unit=False)) for name in ('preds_S', 'preds_T'))
    return np.asarray(options['loss_weight'] * ((student - teacher) ** 2).mean() if student.size else 0.0)


def _similarities(x: Array) -> Array:
    g = np.zeros((len(x), len(x)))
    for i in range(len(x)):
        for j in range(len(x)):
            g[i, j] = x[i] @ x[j]
        length = np.sqrt(g[i] @ g[i])
        if length != 0:
            g[i] /= length
    return g
