"""Squared error of similarities with margins and mined negatives."""

import numpy as np

from lossreg.oracles.reference import Array, Inputs, Options, reduce


@np.errstate(all='ignore')
def margin_l2_loss(call: str, inputs: Inputs, options: Options) -> Array:
    """loss = mean of w (min(max(x - m, 0), 1) - t)² over the elements that count, with the margin m of t = 1 or t = 0.

    Of the negatives, t = 0, at most ``neg_pos_ub`` per positive count: those with the largest noise, or, with
    ``hard_mining``, those with the largest error; ties go to the first.
    """
    x, t = inputs['pred'].astype(np.float64), inputs['target']
    weight = inputs.get('weight', np.ones(t.shape))
    counted = weight > 0
    for value, margin in ((1, options['pos_margin']), (0, options['neg_margin'])):
        if margin > 0:
            x = np.where(t == value, x - margin, x)
    error = (np.minimum(np.maximum(x, 0), 1) - t) ** 2
    if options['neg_pos_ub'] > 0:
        negatives = list(zip(*np.nonzero(counted & (t == 0)), strict=True))
        key = error if options['hard_mining'] else inputs['noise']
        # the hardest first; NaN before all others
        negatives.sort(key=lambda i: -(np.inf if np.isnan(key[i]) else key[i]))
        for i in negatives[int(options['neg_pos_ub'] * (counted & (t == 1)).sum()) :]:
            counted[i] = False
    return reduce(np.where(counted, weight * error, 0.0), options, np.asarray(counted.sum()))
