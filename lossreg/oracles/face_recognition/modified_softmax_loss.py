"""Softmax loss over classes of unit length."""

import numpy as np

from lossreg.oracles.reference import Array, Inputs, Options, log_softmax, reduce


def unit(v: Array) -> Array:
    """v/|v|, with |v| at least 1e-12."""
    result: Array = v / np.maximum(np.sqrt((v**2).sum()), 1e-12)
    return result


def cosine(x: Array, w: Array) -> float:
    """cos θ of the angle θ between two vectors, at most 1 in magnitude."""
    return float(np.clip(unit(x) @ unit(w), -1.0, 1.0))


@np.errstate(all='ignore')
def modified_softmax_loss(call: str, inputs: Inputs, options: Options) -> Array:
    """loss = reduction of -log softmax_j(x_i · w_j/|w_j|) at j = y_i."""
    features, labels, weight = inputs['features'], inputs['label'], inputs['weight']
    losses = np.zeros(len(features))
    for i, (x, y) in enumerate(zip(features, labels, strict=True)):
        logits = np.array([x @ unit(w) for w in weight])
        losses[i] = -log_softmax(logits)[y]
    return reduce(losses, options)
