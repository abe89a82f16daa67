"""Dice loss of masks."""

import numpy as np

from lossreg.oracles.reference import Array, Inputs, Options, log_sigmoid, reduce


@np.errstate(all='ignore')
def dice_loss(call: str, inputs: Inputs, options: Options) -> Array:
    """loss = reduction of w_n · (1 - D_n), with p = σ(pred) in the call ``logits``, and pred in ``probabilities``."""
    pred, target, weight = inputs['pred'], inputs['target'], inputs.get('weight')
    losses = np.zeros(len(pred))
    for n in range(len(pred)):
        if weight is not None and weight[n] == 0:
            continue
        x, t = pred[n].ravel(), target[n].ravel()
        p = np.exp([log_sigmoid(value) for value in x]) if call == 'logits' else x
        losses[n] = (1 - _dice(p, t, options)) * (1.0 if weight is None else weight[n])
    return reduce(losses, options, inputs.get('avg_factor'))


def _dice(p: Array, t: Array, options: Options) -> float:
    """D = 2 Σ p t / (Σ p² + ε + Σ t² + ε), or, naive, (2 Σ p t + ε) / (Σ p + Σ t + ε)."""
    overlap, eps = 2 * (p * t).sum(), options['eps']
    if options['naive_dice']:
        return float((overlap + eps) / (p.sum() + t.sum() + eps))
    return float(overlap / ((p * p).sum() + eps + (t * t).sum() + eps))
