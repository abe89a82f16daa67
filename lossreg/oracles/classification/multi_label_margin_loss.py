"""Multi-label margin loss: every class of the set above every other by a margin."""

import numpy as np

from lossreg.oracles.reference import Array, Inputs, Options, reduce_as_torch


@np.errstate(all='ignore')
def multi_label_margin_loss(call: str, inputs: Inputs, options: Options) -> Array:
    """loss_n = 1/C Σ_j Σ_k max(0, margin - x_nj + x_nk).

    j goes over the labels before the first -1, k over all other classes. A label that occurs twice counts twice.
    """
    scores, target = np.atleast_2d(inputs['input']), np.atleast_2d(inputs['target'])
    samples, classes = scores.shape
    losses = np.zeros(samples)
    for n in range(samples):
        labels = list(target[n])
        labels = labels[: labels.index(-1)] if -1 in labels else labels
        for j in labels:
            for k in range(classes):
                if k not in labels:
                    losses[n] += np.maximum(0.0, options['margin'] - scores[n, j] + scores[n, k]) / classes
    return reduce_as_torch(losses.reshape(inputs['input'].shape[:-1]), options)
