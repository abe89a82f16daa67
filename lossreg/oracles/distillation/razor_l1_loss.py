"""mmrazor's L1 loss."""

import numpy as np

from lossreg.oracles.reference import Array, Inputs, Options, reduce_as_torch


@np.errstate(all='ignore')
def razor_l1_loss(call: str, inputs: Inputs, options: Options) -> Array:
    """loss = loss_weight · reduction of |s - t|."""
    losses = np.abs(inputs['s_feature'] - inputs['t_feature'])
    return np.asarray(options['loss_weight'] * reduce_as_torch(losses, options))
