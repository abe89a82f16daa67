"""Negative log-likelihood of class indices."""

import numpy as np

from lossreg.oracles.reference import Array, Inputs, Options, reduce_as_torch


@np.errstate(all='ignore')
def nll_loss(call: str, inputs: Inputs, options: Options) -> Array:
    """loss_i = -w_y · x_iy, where x holds log-probabilities; the mean is Σ loss_i / Σ w_y. Ignored samples are 0.

    Classes are in dimension 1 of the input, or in its only one.
    """
    scores, labels = inputs['input'], inputs['target']
    scores = np.moveaxis(scores, min(1, scores.ndim - 1), -1)
    weight = np.ones(scores.shape[-1]) if options['weight'] is None else options['weight']
    losses, weights = np.zeros(labels.shape), 0.0
    for i in np.ndindex(labels.shape):
        label = labels[i]
        if label == options['ignore_index'] or weight[label] == 0:
            continue
        losses[i] = -weight[label] * scores[i][label]
        weights += float(weight[label])
    return reduce_as_torch(losses, options, weights)
