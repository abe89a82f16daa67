"""Mean squared error of keypoint heatmaps."""

import numpy as np

from lossreg.oracles.reference import Array, Inputs, Options, weighted


@np.errstate(all='ignore')
def keypoint_mse_loss(call: str, inputs: Inputs, options: Options) -> Array:
    """loss = loss_weight · 1/M · Σ w_nkp (x_nkp - t_nkp)², where M is the number of all pixels, of all keypoints."""
    output, target = inputs['output'], inputs['target']
    total = 0.0
    for n, k in np.ndindex(output.shape[:2]):
        total += weighted((output[n, k] - target[n, k]) ** 2, pixel_weights(n, k, inputs, options)).sum()
    return np.asarray(options['loss_weight'] * total / output.size if output.size else 0.0)


def pixel_weights(n: int, k: int, inputs: Inputs, options: Options) -> Array:
    """w_nkp = v_nk m_np, or v_nkp m_np; 0 in channels whose target is 0 everywhere, if these are skipped.

    v are ``target_weights`` and m the ``mask``; each is 1 where it is absent.
    """
    target = inputs['target'][n, k]
    weights = np.ones(target.shape)
    if options['skip_empty_channel'] and not (target != 0).any():
        return 0 * weights
    if 'target_weights' in inputs:
        weights = weights * inputs['target_weights'][n, k]
    if 'mask' in inputs:
        weights = weights * inputs['mask'][n, 0]
    return weights
