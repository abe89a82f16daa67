"""Factor transfer."""

import numpy as np

from lossreg.oracles.distillation.distance_wise_rkd import flat
from lossreg.oracles.reference import Array, Inputs, Options


@np.errstate(all='ignore')
def ft_loss(call: str, inputs: Inputs, options: Options) -> Array:
    """loss = loss_weight · mean of |s - t|, with every sample scaled to length 1."""
    errors = np.abs(flat(inputs['s_feature'], unit=True) - flat(inputs['t_feature'], unit=True))
    return np.asarray(options['loss_weight'] * errors.mean() if errors.size else 0.0)
