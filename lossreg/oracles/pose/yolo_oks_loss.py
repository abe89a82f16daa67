"""Object keypoint similarity (OKS) loss, called as in mmyolo."""

import numpy as np

from lossreg.oracles.keypoints import sigmas_of
from lossreg.oracles.reference import Array, Inputs, Options


@np.errstate(all='ignore')
def yolo_oks_loss(call: str, inputs: Inputs, options: Options) -> Array:
    """loss_n = loss_weight · (1 - Σ_k w_k exp(-d_k²/2) / max(Σ_k w_k, 1e-8)).

    d = |x - t| / (σ max(diagonal of the box, 1e-8)), without σ or the box where they are not given.
    """
    output, target, weights = inputs['output'], inputs['target'], inputs['target_weights']
    sigmas = sigmas_of(options['metainfo'])
    losses = np.zeros(len(output))
    for n in range(len(output)):
        similarity = 0.0
        for k in range(output.shape[1]):
            if weights[n, k] == 0:
                continue
            d = np.linalg.norm(output[n, k] - target[n, k])
            if sigmas is not None:
                d /= sigmas[k]
            if 'bboxes' in inputs:
                x1, y1, x2, y2 = inputs['bboxes'][n]
                d /= np.maximum(np.hypot(x2 - x1, y2 - y1), 1e-8)
            similarity += weights[n, k] * np.exp(-(d**2) / 2)
        losses[n] = 1 - similarity / np.maximum(weights[n].sum(), 1e-8)
    return np.asarray(options['loss_weight'] * losses)
