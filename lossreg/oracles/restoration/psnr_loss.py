"""Negative peak signal-to-noise ratio."""

import numpy as np

from lossreg.oracles.reference import Array, Inputs, Options


@np.errstate(all='ignore')
def psnr_loss(call: str, inputs: Inputs, options: Options) -> Array:
    """loss = mean over the samples of 10 log₁₀(mean squared error + 10⁻⁸)."""
    losses = [
        10 * np.log10(((x - t) ** 2).mean() + 1e-8) for x, t in zip(inputs['pred'], inputs['target'], strict=True)
    ]
    return np.asarray(options['loss_weight'] * np.mean(losses) if losses else 0.0)
