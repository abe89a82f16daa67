"""L1 loss, with torch's options."""

import numpy as np

from lossreg.oracles.reference import Array, Inputs, Options, reduce_as_torch


@np.errstate(all='ignore')
def torch_l1_loss(call: str, inputs: Inputs, options: Options) -> Array:
    """loss = reduction of |x - t|."""
    return reduce_as_torch(np.abs(inputs['input'] - inputs['target']), options)
