"""CurricularFace: ArcFace whose hard negatives gain weight as training goes on."""

from collections.abc import Mapping

import numpy as np

from lossreg.oracles.face_recognition.arc_face_loss import add_margin
from lossreg.oracles.face_recognition.modified_softmax_loss import cosine
from lossreg.oracles.reference import Array, Inputs, Options, log_softmax, reduce


@np.errstate(all='ignore')
def curricular_face_loss(call: str, inputs: Inputs, options: Options) -> Mapping[str, Array]:
    """loss = reduction of -log softmax_j(s z_ij) at j = y_i.

    z_iy = cos(θ_iy + m), or cos θ_iy - m sin(π - m) where θ_iy + m ≥ π. For other j, z_ij = cos θ_ij, or
    cos θ_ij (t' + cos θ_ij) where cos θ_ij exceeds cos(θ_iy + m). t' = momentum · t + (1 - momentum) · mean_i cos θ_iy,
    without gradient; an empty batch does not change t.
    """
    features, labels, weight, m = inputs['features'], inputs['label'], inputs['weight'], options['m']
    cosines = np.array([[cosine(x, w) for w in weight] for x in features]).reshape(len(features), len(weight))
    own = np.array([cosines[i, y] for i, y in enumerate(labels)])
    next_t = inputs['t']
    if len(own):
        next_t = options['momentum'] * inputs['t'] + (1 - options['momentum']) * own.mean()
    t = inputs.get('held_t', next_t)
    losses = np.zeros(len(features))
    for i, y in enumerate(labels):
        shifted = add_margin(own[i], m)
        z = np.array([c * (t + c) if c > shifted else c for c in cosines[i]])
        z[y] = own[i] - m * np.sin(np.pi - m) if own[i] <= np.cos(np.pi - m) else shifted
        losses[i] = -log_softmax(options['s'] * z)[y]
    return {'loss': reduce(losses, options), 'next_t': next_t, 'held_t': next_t}
