"""Normalised knowledge distillation."""

import numpy as np

from lossreg.oracles.reference import Array, Inputs, Options, log_softmax, times


@np.errstate(all='ignore')
def nkd_loss(call: str, inputs: Inputs, options: Options) -> Array:
    """loss = loss_weight · reduction of -t_y log s_y - γ τ² Σ_k≠y t̂_k log ŝ_k.

    s, t = softmax(preds), and ŝ, t̂ = softmax(preds / τ) among the classes other than y.
    """
    tau, gamma = options['tau'], options['gamma']
    losses = np.zeros(len(inputs['preds_S']))
    for n, (s, t, y) in enumerate(zip(inputs['preds_S'], inputs['preds_T'], inputs['gt_labels'], strict=True)):
        losses[n] = -times(np.exp(log_softmax(t)[y]), log_softmax(s)[y])
        if len(s) > 1:
            others_s, others_t = log_softmax(np.delete(s, y) / tau), log_softmax(np.delete(t, y) / tau)
            losses[n] -= gamma * tau**2 * times(np.exp(others_t), others_s).sum()
    losses *= options['loss_weight']
    if options['reduction'] == 'none':
        return losses
    return np.asarray(losses.sum() / (1 if options['reduction'] == 'sum' else max(len(losses), 1)))
