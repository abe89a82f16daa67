"""Distillation of SimCC's logits (DWPose)."""

import numpy as np

from lossreg.oracles.reference import Array, Inputs, Options, log_softmax


@np.errstate(all='ignore')
def kd_loss(call: str, inputs: Inputs, options: Options) -> Array:
    """loss = weight / (N·K) · Σ_nk w_nk (KL^x_nk + KL^y_nk), KL = Σ_b t_b (log t_b - log s_b).

    s = softmax(beta · student), t = softmax(beta · teacher).
    """
    samples, keypoints = inputs['pred_x'].shape[:2]
    beta = float(inputs['beta'])
    summed = 0.0
    for n, k in np.ndindex(samples, keypoints):
        w = float(inputs['target_weight'][n, k]) if 'target_weight' in inputs else 1.0
        if w == 0:
            continue
        for axis in 'xy':
            log_s = log_softmax(beta * inputs[f'pred_{axis}'][n, k])
            log_t = log_softmax(beta * inputs[f'pred_t_{axis}'][n, k])
            for s, t in zip(log_s, log_t, strict=True):
                if np.exp(t) != 0 or np.isnan(s):  # 0 · log(0 / s) = 0
                    summed += w * np.exp(t) * (t - s)
    count = samples * keypoints
    return np.asarray(options['weight'] * summed / count if count else 0.0)
