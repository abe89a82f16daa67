"""Activation of features."""

import numpy as np

from lossreg.oracles.reference import Array, Inputs, Options


@np.errstate(all='ignore')
def activation_loss(call: str, inputs: Inputs, options: Options) -> Array:
    """loss = -loss_weight · mean |x|, or -loss_weight · √Σ x² for ``norm``."""
    x = inputs['feat_T']
    if options['norm_type'] == 'norm':
        return np.asarray(-options['loss_weight'] * np.sqrt((x**2).sum()))
    return np.asarray(-options['loss_weight'] * np.abs(x).sum() / max(x.size, 1))
