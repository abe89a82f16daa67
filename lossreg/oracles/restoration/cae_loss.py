"""The losses of a context autoencoder."""

from collections.abc import Mapping

import numpy as np

from lossreg.oracles.reference import Array, Inputs, Options, log_softmax


@np.errstate(all='ignore')
def cae_loss(call: str, inputs: Inputs, options: Options) -> Mapping[str, Array]:
    """loss_main = mean of -log p_ny over the samples with y ≠ -100; loss_align = λ · mean (z - z̄)²."""
    nll = [-log_softmax(x)[y] for x, y in zip(inputs['logits'], inputs['target'], strict=True) if y != -100]
    error = (inputs['latent_pred'] - inputs['latent_target']) ** 2
    return {
        'loss_main': np.asarray(np.mean(nll) if nll else 0.0),
        'loss_align': np.asarray(options['lambd'] * error.mean() if error.size else 0.0),
    }
