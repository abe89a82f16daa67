"""Margin ranking loss of pairs of scores."""

import numpy as np

from lossreg.oracles.reference import Array, Inputs, Options, reduce_as_torch


@np.errstate(all='ignore')
def margin_ranking_loss(call: str, inputs: Inputs, options: Options) -> Array:
    """loss = reduction of max(0, -y_n (a_n - b_n) + margin).

    In the call ``outer``, a and b are columns, and each row n is combined with every y_m: (N, M).
    """
    a, b, y = inputs['input1'], inputs['input2'], inputs['target']
    outer = call == 'outer'
    losses = np.zeros((len(a), len(y)) if outer else y.shape)
    for place in np.ndindex(losses.shape):
        of_pair, of_target = ((place[0], 0), place[1]) if outer else (place, place)
        losses[place] = np.maximum(-y[of_target] * (a[of_pair] - b[of_pair]) + options['margin'], 0)
    return reduce_as_torch(losses, options)
