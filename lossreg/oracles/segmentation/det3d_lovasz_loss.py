"""Lovasz losses of points and voxels."""

import numpy as np

from lossreg.oracles.reference import Array, Inputs, Options
from lossreg.oracles.segmentation.lovasz_loss import lovasz


@np.errstate(all='ignore')
def det3d_lovasz_loss(call: str, inputs: Inputs, options: Options) -> Array:
    """loss = the loss of all samples as one, or, with ``per_sample``, reduction of the loss of each sample."""
    return lovasz(call, inputs, options, bool(options['per_sample']))
