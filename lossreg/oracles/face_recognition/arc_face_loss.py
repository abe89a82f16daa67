"""ArcFace: additive angular margin."""

from typing import Any

import numpy as np

from lossreg.oracles.face_recognition.modified_softmax_loss import cosine
from lossreg.oracles.reference import Array, Inputs, Options, log_softmax, reduce


def add_margin(cos: float, m: float) -> float:
    """cos(θ + m) = cos θ cos m - sin θ sin m, with sin² θ at least 1e-7."""
    sin = np.sqrt(np.maximum(1 - cos**2, 1e-7))
    return float(cos * np.cos(m) - sin * np.sin(m))


def arc_target(cos: float, options: Options) -> float:
    """cos(θ + m) at the target, or its replacement where θ + m is too large."""
    m = options['m']
    if options['easy_margin'] and not cos > 0 and not np.isnan(cos):
        return cos  # θ ≥ π/2: no margin
    if options['monotonic'] and not cos > np.cos(np.pi - m) and not np.isnan(cos):
        return float(cos - m * np.sin(np.pi - m))  # θ + m ≥ π
    return add_margin(cos, m)


@np.errstate(all='ignore')
def arc_face_loss(call: str, inputs: Inputs, options: Options) -> Any:
    """loss = reduction of -log softmax_j(z_ij) at j = y_i, with z_ij = s cos(θ_ij + m [j = y_i])."""
    features, labels, weight = inputs['features'], inputs['label'], inputs['weight']
    logits, losses = np.zeros((len(features), len(weight))), np.zeros(len(features))
    for i, (x, y) in enumerate(zip(features, labels, strict=True)):
        cosines = np.array([cosine(x, w) for w in weight])
        cosines[y] = arc_target(float(cosines[y]), options)
        logits[i] = options['s'] * cosines
        losses[i] = -log_softmax(logits[i])[y]
    loss: Array = reduce(losses, options)
    return {'logits': logits, 'loss': loss} if options['return_logits'] else loss
