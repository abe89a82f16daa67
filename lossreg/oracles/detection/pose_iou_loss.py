"""IoU loss, called as in mmpose."""

import numpy as np

from lossreg.oracles.boxes import area, intersection
from lossreg.oracles.reference import Array, Inputs, Options, reduce


@np.errstate(all='ignore')
def pose_iou_loss(call: str, inputs: Inputs, options: Options) -> Array:
    """loss = reduction of w f(IoU): f = -log IoU ('log'), 1 - IoU ('linear') or 1 - IoU² ('square').

    IoU = I / max(U, 1e-6), at least eps.
    """
    output, target, weight = inputs['output'], inputs['target'], inputs.get('target_weight')
    losses = np.zeros(len(output))
    for n in range(len(output)):
        w = 1.0 if weight is None else float(weight[n])
        if w == 0:
            continue
        overlap = intersection(output[n], target[n])
        iou = overlap / np.maximum(area(output[n]) + area(target[n]) - overlap, 1e-6)
        iou = np.maximum(iou, options['eps'])
        losses[n] = w * {'log': -np.log(iou), 'linear': 1 - iou, 'square': 1 - iou**2}[options['mode']]
    return reduce(losses, options)
