"""KL divergence of SimCC coordinates."""

import numpy as np

from lossreg.oracles.reference import Array, Inputs, Options, log_softmax


@np.errstate(all='ignore')
def kl_discret_loss(call: str, inputs: Inputs, options: Options) -> Array:
    """loss = 1/D · Σ_nk w_nk m_k (KL^x_nk + KL^y_nk), with D = K for ``pairs`` and D = N·K for ``tensors``.

    w is ``target_weight``; m is ``mask_weight`` at the keypoints of ``mask``, else 1.
    """
    pred, target = ('output', 'target') if call == 'tensors' else ('pred', 'gt')
    samples, keypoints = inputs[f'{pred}_x'].shape[:2]
    weight = np.ones((samples, keypoints))
    if options['use_target_weight'] and 'target_weight' in inputs:
        weight = inputs['target_weight'].reshape(samples, keypoints)

    total = 0.0
    for n, k in np.ndindex(samples, keypoints):
        factor = float(weight[n, k])  # w_nk m_k
        if k in (m % keypoints for m in options['mask'] or ()):
            factor *= options['mask_weight']
        if factor == 0:
            continue
        for axis in 'xy':
            total += factor * _divergence(inputs[f'{pred}_{axis}'][n, k], inputs[f'{target}_{axis}'][n, k], options)

    divisor = keypoints if call == 'pairs' else samples * keypoints  # D
    return np.asarray(total / divisor if divisor else 0.0)


def _divergence(x: Array, t: Array, options: Options) -> float:
    """KL = 1/W · Σ_b t_b (log t_b - log q_b), with q = softmax(β x), and with t = softmax(β_label t) if asked for."""
    log_q = log_softmax(options['beta'] * x)
    if options['label_softmax']:
        t = np.exp(log_softmax(options['label_beta'] * t))
    absent = (t == 0) & ~np.isnan(log_q)  # 0 · log(0 / q) = 0, also for q = 0
    return float(np.where(absent, 0.0, t * (np.log(t) - log_q)).mean())
