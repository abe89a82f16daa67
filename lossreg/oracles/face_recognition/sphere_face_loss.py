"""SphereFace: multiplicative angular margin."""

import numpy as np

from lossreg.oracles.face_recognition.modified_softmax_loss import cosine, unit
from lossreg.oracles.reference import Array, Inputs, Options, log_softmax, reduce


@np.errstate(all='ignore')
def sphere_face_loss(call: str, inputs: Inputs, options: Options) -> Array:
    """loss = reduction of -log softmax_j(z_ij) at j = y_i, z_ij = |x_i| ψ(θ_ij) at j = y_i, else |x_i| cos θ_ij.

    ψ(θ) = (-1)^k cos(m θ) - 2k, where kπ/m ≤ θ ≤ (k + 1)π/m.
    """
    features, labels, weight, m = inputs['features'], inputs['label'], inputs['weight'], options['m']
    losses = np.zeros(len(features))
    for i, (x, y) in enumerate(zip(features, labels, strict=True)):
        logits = np.array([x @ unit(w) for w in weight])
        theta = np.arccos(cosine(x, weight[y]))
        k = np.minimum(np.floor(m * theta / np.pi), m - 1)
        logits[y] = np.sqrt((x**2).sum()) * ((-1) ** k * np.cos(m * theta) - 2 * k)
        losses[i] = -log_softmax(logits)[y]
    return reduce(losses, options)
