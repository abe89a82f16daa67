"""Distillation of feature maps (DWPose)."""

import numpy as np

from lossreg.oracles.reference import Array, Inputs, Options


@np.errstate(all='ignore')
def fea_loss(call: str, inputs: Inputs, options: Options) -> Array:
    """loss = alpha / N · Σ (Σ_c a_dc s_nchw + b_d - t_ndhw)²; a = 1 and b = 0 where the channels are equal.

    The convolution's parameters are inputs, or else the module's.
    """
    student, teacher = inputs['preds_S'], inputs['preds_T']
    weight = inputs.get('align_weight', inputs.get('align.weight'))
    bias = inputs.get('align_bias', inputs.get('align.bias'))
    summed = 0.0
    for n, d, h, w in np.ndindex(teacher.shape):
        if weight is None or bias is None:
            aligned = float(student[n, d, h, w])
        else:
            aligned = float(np.sum(weight[d, :, 0, 0] * student[n, :, h, w]) + bias[d])
        summed += float(aligned - teacher[n, d, h, w]) ** 2
    samples = len(teacher)
    return np.asarray(options['alpha_fea'] * summed / samples if samples else 0.0)
