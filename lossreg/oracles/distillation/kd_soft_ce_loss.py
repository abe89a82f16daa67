"""Cross-entropy against soft labels."""

import numpy as np

from lossreg.oracles.reference import Array, Inputs, Options, log_softmax, times


@np.errstate(all='ignore')
def kd_soft_ce_loss(call: str, inputs: Inputs, options: Options) -> Array:
    """loss = loss_weight · τ² · reduction of -w Σ_k t_k log s_k, with s, t = softmax(preds / τ).

    τ² is left out without ``mult_tem_square``. ``mean`` divides by N, or by avg_factor without an eps.
    """
    tau = options['tau']
    losses = np.zeros(len(inputs['preds_S']))
    for n, (s, t) in enumerate(zip(inputs['preds_S'], inputs['preds_T'], strict=True)):
        w = float(inputs['weight'][n]) if 'weight' in inputs else 1.0
        if w != 0:
            losses[n] = -w * times(np.exp(log_softmax(t / tau)), log_softmax(s / tau)).sum()
    losses *= options['loss_weight'] * (tau**2 if options['mult_tem_square'] else 1.0)
    if options['reduction'] == 'none':
        return losses
    divisor = 1.0 if options['reduction'] == 'sum' else float(inputs.get('avg_factor', len(losses)))
    return np.asarray(losses.sum() / divisor if divisor else 0.0)
