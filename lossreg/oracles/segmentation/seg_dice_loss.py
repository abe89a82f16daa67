"""Dice loss of the classes of an image."""

import numpy as np

from lossreg.oracles.reference import Array, Inputs, Options, log_sigmoid, log_softmax, reduce


@np.errstate(all='ignore')
def seg_dice_loss(call: str, inputs: Inputs, options: Options) -> Array:
    """loss = reduction of w_n · (1 - D_n); D is over all classes but ``ignore_index``, and over all pixels.

    In the calls ``pixels``, t_ki = [y_i = k]; a label that is not a class gives 0 in all classes.
    """
    pred, target, weight = inputs['pred'], inputs['target'], inputs.get('weight')
    losses = np.zeros(len(pred))
    for n in range(len(pred)):
        if weight is not None and weight[n] == 0:
            continue
        p, t = _activated(call, pred[n], options), np.zeros(pred[n].shape)
        for i in np.ndindex(t.shape):
            t[i] = target[(n, *i[1:])] == i[0] if call.endswith('pixels') else target[(n, *i)]
        counted = [k for k in range(len(p)) if call.endswith('points') or k != options['ignore_index']]
        losses[n] = (1 - _dice(p[counted], t[counted], options)) * (1.0 if weight is None else weight[n])
    return reduce(losses, options, inputs.get('avg_factor'))


def _activated(call: str, x: Array, options: Options) -> Array:
    """σ(x), the softmax over the first dimension (a single class stays unchanged), or x itself."""
    p = np.array(x)
    if call.startswith('activated') or (not options['use_sigmoid'] and len(x) == 1):
        return p
    for i in np.ndindex(x.shape[1:]):
        pixel = (slice(None), *i)
        p[pixel] = np.exp(log_sigmoid(x[pixel]) if options['use_sigmoid'] else log_softmax(x[pixel]))
    return p


def _dice(p: Array, t: Array, options: Options) -> float:
    """D = 2 Σ p t / (Σ p² + ε + Σ t² + ε), or, naive, (2 Σ p t + ε) / (Σ p + Σ t + ε)."""
    overlap, eps = 2 * (p * t).sum(), options['eps']
    if options['naive_dice']:
        return float((overlap + eps) / (p.sum() + t.sum() + eps))
    return float(overlap / ((p * p).sum() + eps + (t * t).sum() + eps))
