"""L1 loss, with torch's options."""

import numpy as np

from lossreg.oracles.elementwise import torch_reduce
from lossreg.oracles.reference import Array, Inputs, Options


@np.errstate(all='ignore')
def torch_l1_loss(call: str, inputs: Inputs, options: Options) -> Array:
    """loss = reduction of |x - t|."""
    return torch_reduce(np.abs(inputs['input'] - inputs['target']), options)
