"""mmaction's binary cross-entropy of logits."""

import numpy as np

from lossreg.oracles.reference import Array, Inputs, Options, log_sigmoid, times


@np.errstate(all='ignore')
def bce_loss_with_logits(call: str, inputs: Inputs, options: Options) -> Array:
    """loss = loss_weight · mean over all n, k of -c_k (t log σ(x) + (1 - t) log σ(-x)), with c = class_weight."""
    scores, targets = inputs['cls_score'], inputs['label']
    c = np.ones(scores.shape[1]) if options['class_weight'] is None else np.asarray(options['class_weight'])
    summed = 0.0
    for n, k in np.ndindex(scores.shape):
        if c[k] != 0:
            x, t = scores[n, k], targets[n, k]
            summed -= float(c[k]) * float(times(t, log_sigmoid(x)) + times(1 - t, log_sigmoid(-x)))
    return np.asarray(options['loss_weight'] * summed / scores.size if scores.size else 0.0)
