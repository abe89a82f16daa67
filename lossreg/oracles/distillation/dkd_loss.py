"""Decoupled knowledge distillation."""

import numpy as np

from lossreg.oracles.reference import Array, Inputs, Options, log_softmax, times


@np.errstate(all='ignore')
def dkd_loss(call: str, inputs: Inputs, options: Options) -> Array:
    """loss = loss_weight · τ² · Σ_n (α KL(b_T ‖ b_S) + β KL(q_T ‖ q_S)), divided by N for ``batchmean`` only.

    b = (p_y, Σ_k≠y p_k) with p = softmax(preds / τ), and q = softmax(preds / τ - 1000 at y).
    """
    total = 0.0
    for s, t, y in zip(inputs['preds_S'], inputs['preds_T'], inputs['gt_labels'], strict=True):
        log_b_s, log_q_s = _logarithms(s / options['tau'], int(y))
        log_b_t, log_q_t = _logarithms(t / options['tau'], int(y))
        total += options['alpha'] * _divergence(log_b_t, log_b_s) + options['beta'] * _divergence(log_q_t, log_q_s)
    count = max(len(inputs['preds_S']), 1) if options['reduction'] == 'batchmean' else 1
    return np.asarray(options['loss_weight'] * options['tau'] ** 2 * total / count)


def _logarithms(x: Array, y: int) -> tuple[Array, Array]:
    """log b and log q."""
    log_p = log_softmax(x)
    others = np.delete(log_p, y)
    largest = others.max(initial=-np.inf)
    log_rest = largest + np.log(np.exp(others - largest).sum()) if largest > -np.inf else largest
    return np.array([log_p[y], log_rest]), log_softmax(x - 1000.0 * (np.arange(len(x)) == y))


def _divergence(log_t: Array, log_s: Array) -> float:
    """Σ t (log t - log s)."""
    t = np.exp(log_t)
    return float((times(t, log_t) - times(t, log_s)).sum())
