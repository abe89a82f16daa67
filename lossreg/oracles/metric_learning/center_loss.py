"""Center loss: features against the centre of their class."""

from collections.abc import Mapping

import numpy as np

from lossreg.oracles.reference import Array, Inputs, Options


@np.errstate(all='ignore')
def center_loss(call: str, inputs: Inputs, options: Options) -> Array | Mapping[str, Array]:
    """loss = loss_weight/2N · Σ_i |x_i - c_{y_i}|², or loss_weight/2N · sqrt(Σ_i |x_i - c_{y_i}|²).

    The call ``step`` also moves the centres: c_j + α · Σ_{y_i = j} (x_i - c_j) / (1 + n_j), n_j = |{i: y_i = j}|.
    """
    features, labels, centers = inputs['features'], inputs['label'], inputs['centers']
    loss = np.asarray(options['loss_weight'] * distance_to_centers(features, labels, centers, options['squared']))
    if call != 'step':
        return loss
    moved = centers.copy()
    for j in range(len(centers)):
        own = features[labels == j]
        moved[j] += options['alpha'] * (own - centers[j]).sum(axis=0) / (1 + len(own))
    return {'loss': loss, 'next_centers': moved}


def distance_to_centers(features: Array, labels: Array, centers: Array, squared: bool) -> float:
    """1/2N · Σ_i |x_i - c_{y_i}|² or 1/2N · sqrt(Σ_i |x_i - c_{y_i}|²); 0 for an empty batch."""
    if not len(features):
        return 0.0
    total = 0.0
    for x, y in zip(features, labels, strict=True):
        total += float(((x - centers[int(y)]) ** 2).sum())
    return float((total if squared else np.sqrt(total)) / (2 * len(features)))
