"""Softmax cross-entropy with center loss."""

from collections.abc import Mapping

import numpy as np

from lossreg.oracles.metric_learning.center_loss import distance_to_centers
from lossreg.oracles.reference import Array, Inputs, Options, log_softmax


@np.errstate(all='ignore')
def center_softmax_loss(call: str, inputs: Inputs, options: Options) -> Mapping[str, Array]:
    """loss = -1/N Σ_i log softmax(z_i)_{y_i} + lamda · center loss of x, with the logits z_ij = x_i · w_j."""
    features, labels, weight = inputs['features'], inputs['label'], inputs['weight']
    logits = np.zeros((len(features), len(weight)))
    for i, j in np.ndindex(logits.shape):
        logits[i, j] = (features[i] * weight[j]).sum()
    loss = 0.0
    for i, y in enumerate(labels):
        loss -= log_softmax(logits[i])[int(y)] / len(labels)
    loss += options['lamda'] * distance_to_centers(features, labels, inputs['centers'], options['squared'])
    return {'logits': logits, 'loss': np.asarray(loss)}
