"""Likelihood of keypoints under distributions of their coordinates."""

import numpy as np

from lossreg.oracles.reference import Array, Inputs, Options


@np.errstate(all='ignore')
def mlecc_loss(call: str, inputs: Inputs, options: Options) -> Array:
    """loss_n = loss_weight · mean or sum over k of w_nk l_nk, or each of these with reduction 'none'.

    l = 1 - q, 1 - q² or -log(q + 1e-4), with the likelihood q = (Σ x t)(Σ y u); NaN becomes 0.
    """
    samples, keypoints = inputs['output_x'].shape[:2]
    losses = np.zeros((samples, keypoints))
    for n, k in np.ndindex(samples, keypoints):
        weight = inputs['target_weight'][n, k] if options['use_target_weight'] else 1.0
        if weight == 0:
            continue
        q = np.prod([(inputs[f'output_{axis}'][n, k] * inputs[f'target_{axis}'][n, k]).sum() for axis in 'xy'])
        loss = {'linear': 1 - q, 'square': 1 - q**2, 'log': -np.log(q + 1e-4)}[options['mode']]
        losses[n, k] = weight * (0.0 if np.isnan(loss) else loss)
    reduced = {'none': losses, 'sum': losses.sum(1), 'mean': losses.sum(1) / keypoints}[options['reduction']]
    return np.asarray(options['loss_weight'] * reduced)
