"""Multi-class margin loss: the labelled class above every other by a margin."""

import numpy as np

from lossreg.oracles.reference import Array, Inputs, Options, reduce_as_torch


@np.errstate(all='ignore')
def multi_margin_loss(call: str, inputs: Inputs, options: Options) -> Array:
    """loss_n = w_y / C Σ_(k≠y) max(0, margin - x_ny + x_nk)^p, with y the label of sample n, and w = weight."""
    scores, labels = np.atleast_2d(inputs['input']), np.atleast_1d(inputs['target'])
    samples, classes = scores.shape
    weight = np.ones(classes) if options['weight'] is None else options['weight']
    losses = np.zeros(samples)
    for n in range(samples):
        y = labels[n]
        if weight[y] == 0:
            continue
        for k in range(classes):
            if k != y:
                hinge = np.maximum(0.0, options['margin'] - scores[n, y] + scores[n, k])
                losses[n] += weight[y] * hinge ** options['p'] / classes
    return reduce_as_torch(losses.reshape(inputs['target'].shape), options)
