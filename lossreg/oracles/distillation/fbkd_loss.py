"""Feature-based distillation of detectors."""

import numpy as np

from lossreg.oracles.reference import Array, Inputs, Options


@np.errstate(all='ignore')
def fbkd_loss(call: str, inputs: Inputs, options: Options) -> Array:
    """loss = loss_weight · (w_1 √Σ m (f_T - f_S)² + w_2 |mean f_T - c_S| + w_3 |p_T - p_S| + w_4 |r_T - r_S|).

    m, the mean of both spatial masks, is a constant for the gradient. The mean of f_T is over the pixels.
    """
    masked = 0.0
    pooled = np.zeros(inputs['s_channel_pool_adapt'].shape)
    for n, c, h, w in np.ndindex(inputs['t_feat'].shape):
        m = (inputs['s_spatial_mask'][n, 0, h, w] + inputs['t_spatial_mask'][n, 0, h, w]) / 2
        masked += m * (inputs['t_feat'][n, c, h, w] - inputs['s_feat_adapt'][n, c, h, w]) ** 2
        pooled[n, c] += inputs['t_feat'][n, c, h, w] / inputs['t_feat'][n, c].size
    loss = (
        options['mask_l2_weight'] * np.sqrt(masked)
        + options['channel_weight'] * _distance(pooled, inputs['s_channel_pool_adapt'])
        + options['spatial_weight'] * _distance(inputs['t_spatial_pool'], inputs['s_spatial_pool_adapt'])
        + options['nonloacl_weight'] * _distance(inputs['t_relation'], inputs['s_relation_adapt'])
    )
    return np.asarray(options['loss_weight'] * loss)


def _distance(a: Array, b: Array) -> float:
    return float(np.sqrt(((a - b) ** 2).sum()))
