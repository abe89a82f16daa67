"""Balanced binary cross-entropy of boundaries."""

import numpy as np

from lossreg.oracles.reference import Array, Inputs, Options, log_sigmoid


@np.errstate(all='ignore')
def boundary_loss(call: str, inputs: Inputs, options: Options) -> Array:
    """loss = loss_weight / n · Σ_i w_i ℓ_i: w = |N| / (|P| + |N|) and ℓ = -log σ(x) where t = 1,

    w = |P| / (|P| + |N|) and ℓ = -log σ(-x) where t = 0, and 0 elsewhere.
    """
    x, t = inputs['bd_pre'][:, 0], inputs['bd_gt']
    if np.isnan(t).any():
        return np.asarray(np.nan)
    positives, negatives = int((t == 1).sum()), int((t == 0).sum())
    total = 0.0
    for i in np.ndindex(t.shape):
        if t[i] == 1 and negatives:
            total -= negatives / (positives + negatives) * float(log_sigmoid(x[i]))
        elif t[i] == 0 and positives:
            total -= positives / (positives + negatives) * float(log_sigmoid(-x[i]))
    return np.asarray(options['loss_weight'] * total / t.size if t.size else 0.0)
