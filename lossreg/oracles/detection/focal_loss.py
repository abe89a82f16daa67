"""Sigmoid focal loss."""

import numpy as np

from lossreg.oracles.reference import Array, Inputs, Options, log_sigmoid, reduce, times


@np.errstate(all='ignore')
def focal_loss(call: str, inputs: Inputs, options: Options) -> Array:
    """loss = reduction of w · (α t + (1 - α)(1 - t)) · ((1 - p) t + p (1 - t))^γ · BCE(p, t).

    p = σ(pred), or pred in the ``activated`` calls. t = [c = y] in the ``labels`` calls, and the target itself in the
    ``dense`` ones. w has one entry per sample with labels, and one per element with dense targets.
    """
    pred, target, weight = inputs['pred'], inputs['target'], inputs.get('weight')
    dense, activated = call.endswith('dense'), call.startswith('activated')
    losses = np.zeros(pred.shape)
    for n, c in np.ndindex(pred.shape):
        i = (n, c) if dense else n  # index of the target and of its weight
        if weight is not None and weight[i] == 0:
            continue
        x, t = float(pred[n, c]), float(target[i] if dense else target[i] == c)
        p, q, log_p, log_q = _probability(x) if activated else _sigmoid(x)
        alpha_t = options['alpha'] * t + (1 - options['alpha']) * (1 - t)
        modulation = float(np.power(q * t + p * (1 - t), options['gamma']))
        bce = -(times(t, log_p) + times(1 - t, log_q))
        losses[n, c] = times(alpha_t, modulation * bce) * (1.0 if weight is None else weight[i])
    return reduce(losses, options, inputs.get('avg_factor'))


def _sigmoid(x: float) -> tuple[float, float, float, float]:
    """p = σ(x), 1 - p, and their logarithms."""
    log_p, log_q = float(log_sigmoid(x)), float(log_sigmoid(-x))
    return np.exp(log_p), np.exp(log_q), log_p, log_q


def _probability(p: float) -> tuple[float, float, float, float]:
    """p, 1 - p, and their logarithms, which are at least -100, as in torch. NaN outside [0, 1]."""
    if not 0 <= p <= 1:
        return np.nan, np.nan, np.nan, np.nan
    return p, 1 - p, np.maximum(np.log(p), -100.0), np.maximum(np.log1p(-p), -100.0)
