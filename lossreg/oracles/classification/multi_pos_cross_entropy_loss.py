"""Softmax cross-entropy with several positives."""

import numpy as np

from lossreg.oracles.reference import Array, Inputs, Options, reduce


@np.errstate(all='ignore')
def multi_pos_cross_entropy_loss(call: str, inputs: Inputs, options: Options) -> Array:
    """loss = reduction of w_i log(1 + Σ_p Σ_n exp(x_in - x_ip)), p over labels of at least 1, n over labels of 0."""
    scores, labels, weight = inputs['cls_score'], inputs['label'], inputs.get('weight')
    losses = np.zeros(len(scores))
    for i in range(len(scores)):
        if weight is not None and weight[i] == 0:
            continue
        exponents = [0.0]
        exponents += [n - p for p in scores[i][labels[i] >= 1] for n in scores[i][labels[i] == 0]]
        losses[i] = np.nan if np.isnan(labels[i]).any() else _log_sum_exp(np.array(exponents))
        losses[i] *= 1.0 if weight is None else weight[i]
    return reduce(losses, options, inputs.get('avg_factor'))


def _log_sum_exp(x: Array) -> float:
    """log Σ exp(x) = m + log Σ exp(x - m), with m = max x; infinity where that is."""
    m = x.max()
    return float(m if m == np.inf else m + np.log(np.exp(x - m).sum()))
