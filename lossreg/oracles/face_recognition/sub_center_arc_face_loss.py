"""Sub-center ArcFace: additive angular margin to the nearest of each class's centres."""

import numpy as np

from lossreg.oracles.face_recognition.arc_face_loss import arc_target
from lossreg.oracles.face_recognition.modified_softmax_loss import cosine
from lossreg.oracles.reference import Array, Inputs, Options, log_softmax, reduce


@np.errstate(all='ignore')
def sub_center_arc_face_loss(call: str, inputs: Inputs, options: Options) -> Array:
    """loss = ArcFace's, with cos θ_ij = max_k cos(x_i, w_jk)."""
    features, labels, weight = inputs['features'], inputs['label'], inputs['weight']
    losses = np.zeros(len(features))
    for i, (x, y) in enumerate(zip(features, labels, strict=True)):
        cosines = np.array([np.max([cosine(x, w) for w in centres]) for centres in weight])
        cosines[y] = arc_target(float(cosines[y]), options)
        losses[i] = -log_softmax(options['s'] * cosines)[y]
    return reduce(losses, options)
