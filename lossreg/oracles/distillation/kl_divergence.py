"""Kullback-Leibler divergence of a student from its teacher."""

import numpy as np

from lossreg.oracles.reference import Array, Inputs, Options, log_softmax, times


@np.errstate(all='ignore')
def kl_divergence(call: str, inputs: Inputs, options: Options) -> Array:
    """loss = loss_weight · τ² · reduction of t (log t - log s), with s, t = softmax(preds / τ) over dimension 1.

    ``batchmean`` is the sum over the size of the first dimension.
    """
    tau = options['tau']
    student, teacher = np.moveaxis(inputs['preds_S'], 1, -1), np.moveaxis(inputs['preds_T'], 1, -1)
    parts = np.zeros(student.shape)
    for place in np.ndindex(student.shape[:-1]):
        log_s, log_t = log_softmax(student[place] / tau), log_softmax(teacher[place] / tau)
        t = np.exp(log_t)
        parts[place] = times(t, log_t) - times(t, log_s)
    parts = np.moveaxis(options['loss_weight'] * tau**2 * parts, -1, 1)
    if options['reduction'] == 'none':
        return parts
    divisor = {'sum': 1, 'mean': parts.size, 'batchmean': len(parts)}[options['reduction']]
    return np.asarray(parts.sum() / divisor if divisor else 0.0)
