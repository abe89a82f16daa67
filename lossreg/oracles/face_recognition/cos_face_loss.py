"""CosFace: additive cosine margin."""

import numpy as np

from lossreg.oracles.face_recognition.modified_softmax_loss import cosine
from lossreg.oracles.reference import Array, Inputs, Options, log_softmax, reduce


@np.errstate(all='ignore')
def cos_face_loss(call: str, inputs: Inputs, options: Options) -> Array:
    """loss = reduction of -log softmax_j(s (cos θ_ij - m [j = y_i])) at j = y_i."""
    features, labels, weight = inputs['features'], inputs['label'], inputs['weight']
    losses = np.zeros(len(features))
    for i, (x, y) in enumerate(zip(features, labels, strict=True)):
        cosines = np.array([cosine(x, w) for w in weight])
        cosines[y] -= options['m']
        losses[i] = -log_softmax(options['s'] * cosines)[y]
    return reduce(losses, options)
