"""Jensen-Shannon divergence between heatmaps."""

import numpy as np

from lossreg.oracles.reference import Array, Inputs, Options, times


@np.errstate(all='ignore')
def js_discret_loss(call: str, inputs: Inputs, options: Options) -> Array:
    """loss = Σ ½ (p log p/(m + 1e-24) + q log q/(m + 1e-24)), over N with ``size_average``; m = (p + q)/2.

    p and q are heatmaps times the weight of their keypoint, or of their sample.
    """
    pred, gt, weight = inputs['pred_hm'], inputs['gt_hm'], inputs.get('target_weight')
    samples, keypoints = pred.shape[:2]
    summed = 0.0
    for n, k in np.ndindex(samples, keypoints):
        w = 1.0
        if weight is not None:
            w = float(weight[n] if weight.ndim == 1 else weight[n, k])
        if w == 0:
            continue
        p, q = w * pred[n, k], w * gt[n, k]
        log_m = np.log((p + q) / 2 + 1e-24)
        summed += 0.5 * float((_xlogx(p) - times(p, log_m) + _xlogx(q) - times(q, log_m)).sum())
    if options['size_average']:
        summed = summed / samples if samples else 0.0
    return np.asarray(summed)


def _xlogx(x: Array) -> Array:
    """x log x, with 0 log 0 = 0."""
    return times(x, np.log(x))
