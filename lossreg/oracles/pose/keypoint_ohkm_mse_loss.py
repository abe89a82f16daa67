"""Mean squared error of the hardest keypoints' heatmaps."""

import numpy as np

from lossreg.oracles.reference import Array, Inputs, Options, weighted


@np.errstate(all='ignore')
def keypoint_ohkm_mse_loss(call: str, inputs: Inputs, options: Options) -> Array:
    """loss = loss_weight · 1/N · Σ_n 1/topk · (sum of the topk largest l_nk), with l_nk = mean_p (w_nk (x - t))²."""
    output, target = inputs['output'], inputs['target']
    samples, keypoints, topk = *output.shape[:2], options['topk']
    total = 0.0
    for n in range(samples):
        losses = []
        for k in range(keypoints):
            weight = inputs['target_weights'][n, k] if options['use_target_weight'] else None
            losses.append((weighted(output[n, k] - target[n, k], weight) ** 2).mean())
        total += np.sort(losses)[::-1][:topk].sum() / topk  # NaN comes first
    return np.asarray(options['loss_weight'] * total / samples if samples else 0.0)
