"""Quality focal loss."""

import numpy as np

from lossreg.oracles.reference import Array, Inputs, Options, log_sigmoid, reduce, times


@np.errstate(all='ignore')
def quality_focal_loss(call: str, inputs: Inputs, options: Options) -> Array:
    """loss = reduction of w_n Σ_c |t - p|^β · BCE(p, t), with p = σ(pred), or pred in the ``activated`` calls.

    t is the target itself in the ``dense`` calls; else the score at the label, and 0 at every other class.
    """
    pred, weight = inputs['pred'], inputs.get('weight')
    losses = np.zeros(len(pred))
    for n in range(len(pred)):
        if weight is not None and weight[n] == 0:
            continue
        for c in range(pred.shape[1]):
            if call.endswith('dense'):
                t = float(inputs['target'][n, c])
            else:
                t = float(inputs['score'][n]) if inputs['label'][n] == c else 0.0
            losses[n] += _element(float(pred[n, c]), t, options['beta'], call.startswith('activated'))
        losses[n] *= 1.0 if weight is None else weight[n]
    return reduce(losses, options, inputs.get('avg_factor'))


def _element(x: float, t: float, beta: float, activated: bool) -> float:
    """|t - p|^β · -(t log p + (1 - t) log(1 - p)); logarithms of given probabilities are at least -100."""
    if activated:
        if not 0 <= x <= 1:
            return np.nan
        p, log_p, log_q = x, np.maximum(np.log(x), -100.0), np.maximum(np.log1p(-x), -100.0)
    else:
        log_p, log_q = log_sigmoid(x), log_sigmoid(-x)
        p = float(np.exp(log_p))
    bce = -(times(t, log_p) + times(1 - t, log_q))
    return float(times(np.abs(t - p) ** beta, bce))
