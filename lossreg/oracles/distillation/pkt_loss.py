"""Probabilistic knowledge transfer."""

import numpy as np

from lossreg.oracles.distillation.distance_wise_rkd import flat
from lossreg.oracles.reference import Array, Inputs, Options


@np.errstate(all='ignore')
def pkt_loss(call: str, inputs: Inputs, options: Options) -> Array:
    """loss = loss_weight · mean over all (i, j) of p_T log((p_T + 1e-7) / (p_S + 1e-7)), p_i = k_i / Σ k_i.

    k_ij = (1 + x_i · x_j / (|x_i| + 1e-7) / (|x_j| + 1e-7)) / 2.
    """
    s, t = (_neighbourhoods(flat(inputs[name], unit=False)) for name in ('preds_S', 'preds_T'))
    return np.asarray(options['loss_weight'] * (t * np.log((t + 1e-7) / (s + 1e-7))).mean() if s.size else 0.0)


def _neighbourhoods(x: Array) -> Array:
    p = np.zeros((len(x), len(x)))
    for i in range(len(x)):
        for j in range(len(x)):
            lengths = (np.sqrt(x[i] @ x[i]) + 1e-7) * (np.sqrt(x[j] @ x[j]) + 1e-7)
            p[i, j] = (1 + x[i] @ x[j] / lengths) / 2
        p[i] /= p[i].sum()
    return p
