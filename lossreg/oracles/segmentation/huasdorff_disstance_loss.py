"""Hausdorff distance loss, by distance transforms."""

import numpy as np
from numpy.typing import NDArray

from lossreg.oracles.reference import Array, Inputs, Options, log_softmax, reduce


@np.errstate(all='ignore')
def huasdorff_disstance_loss(call: str, inputs: Inputs, options: Options) -> Array:
    """loss = 1/C Σ_{k ≥ 1} c_k · mean over all pixels of (p_k - y)² (d² + d̂²), without the class ``ignore_index``.

    y is the label, 0 where ignored; d² its squared distances, and d̂² those of the most probable class.
    """
    pred, labels = inputs['pred'], inputs['target']
    labels = np.where(labels == options['ignore_index'], 0, labels) if options['ignore_index'] is not None else labels
    classes = pred.shape[1]
    c = np.ones(classes) if options['class_weight'] is None else options['class_weight']
    total = 0.0
    for n in range(len(pred)):
        p = np.zeros(pred[n].shape)
        for i in np.ndindex(labels[n].shape):
            p[(slice(None), *i)] = np.exp(log_softmax(pred[n][(slice(None), *i)]))
        distances = _squared_distances(labels[n] != 0) + _squared_distances(p.argmax(0) != 0)
        for k in range(1, classes):
            if k != options['ignore_index']:
                total += c[k] * ((p[k] - labels[n]) ** 2 * distances).sum()
    count = classes * labels.size
    return reduce(np.asarray(total / count if count else 0.0), options, inputs.get('avg_factor'))


def _squared_distances(mask: NDArray[np.bool_]) -> Array:
    """From each pixel of the mask to the nearest pixel outside, or to (-1, 0) if the mask covers the image."""
    outside = np.argwhere(~mask) if not mask.all() else np.array([[-1, 0]])
    distances = np.zeros(mask.shape)
    for i, j in np.ndindex(mask.shape):
        distances[i, j] = min((i - a) ** 2 + (j - b) ** 2 for a, b in outside) if mask[i, j] else 0.0
    return distances
