"""Tversky loss of the classes of an image."""

import numpy as np

from lossreg.oracles.reference import Array, Inputs, Options, log_softmax


@np.errstate(all='ignore')
def tversky_loss(call: str, inputs: Inputs, options: Options) -> Array:
    """loss = loss_weight / (N C) Σ_nk c_k (1 - T_nk), without the class ``ignore_index``."""
    pred, target, ignored = inputs['pred'], inputs['target'], options['ignore_index']
    classes = pred.shape[1]
    c = np.ones(classes) if options['class_weight'] is None else options['class_weight']
    total = 0.0
    for n in range(len(pred)):
        for k in range(classes):
            if k != ignored and c[k] != 0:
                total += c[k] * (1 - _index(pred[n], target[n], k, options))
    return np.asarray(options['loss_weight'] * total / (len(pred) * classes) if len(pred) else 0.0)


def _index(x: Array, y: Array, k: int, options: Options) -> float:
    """T = (TP + s) / (TP + α FP + β FN + s) over the pixels that are not ignored; 1 if nothing counts."""
    hit = false_positive = false_negative = 0.0
    for i in np.ndindex(y.shape):
        if y[i] == options['ignore_index']:
            continue
        p = float(np.exp(log_softmax(x[(slice(None), *i)])[k]))
        if y[i] == k:
            hit += p
            false_negative += 1 - p
        else:
            false_positive += p
    wrong = options['alpha'] * false_positive + options['beta'] * false_negative
    divisor = hit + wrong + options['smooth']
    return (hit + options['smooth']) / divisor if divisor != 0 else 1.0
