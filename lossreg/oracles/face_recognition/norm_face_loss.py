"""NormFace: softmax loss over scaled cosines."""

import numpy as np

from lossreg.oracles.face_recognition.modified_softmax_loss import cosine
from lossreg.oracles.reference import Array, Inputs, Options, log_softmax, reduce


@np.errstate(all='ignore')
def norm_face_loss(call: str, inputs: Inputs, options: Options) -> Array:
    """loss = reduction of -log softmax_j(s cos θ_ij) at j = y_i."""
    features, labels, weight = inputs['features'], inputs['label'], inputs['weight']
    losses = np.zeros(len(features))
    for i, (x, y) in enumerate(zip(features, labels, strict=True)):
        logits = np.array([options['s'] * cosine(x, w) for w in weight])
        losses[i] = -log_softmax(logits)[y]
    return reduce(losses, options)
