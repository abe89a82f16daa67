"""Masked generative distillation."""

import numpy as np

from lossreg.oracles.reference import Array, Inputs, Options


@np.errstate(all='ignore')
def mgd_loss(call: str, inputs: Inputs, options: Options) -> Array:
    """loss = alpha_mgd · Σ (s - t)² / N."""
    total = 0.0
    for s, t in zip(inputs['preds_S'], inputs['preds_T'], strict=True):
        total += float(((s - t) ** 2).sum())
    return np.asarray(options['alpha_mgd'] * total / max(len(inputs['preds_S']), 1))
