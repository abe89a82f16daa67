"""Bone length loss."""

import numpy as np

from lossreg.oracles.reference import Array, Inputs, Options


@np.errstate(all='ignore')
def bone_loss(call: str, inputs: Inputs, options: Options) -> Array:
    """loss = loss_weight / B · Σ_b |mean_n w_nb |x_nb - x_np| - mean_n w_nb |t_nb - t_np||; p is the parent of b."""
    output, target, weight = inputs['output'], inputs['target'], inputs.get('target_weight')
    bones = [(joint, parent) for joint, parent in enumerate(options['joint_parents']) if joint != parent]
    samples = len(output)
    summed = 0.0
    for joint, parent in bones:
        difference = 0.0
        for n in range(samples):
            w = 1.0 if weight is None else float(weight[n, joint])
            if w != 0:
                difference += w * float(np.linalg.norm(output[n, joint] - output[n, parent]))
                difference -= w * float(np.linalg.norm(target[n, joint] - target[n, parent]))
        summed += abs(difference / samples) if samples else 0.0
    return np.asarray(options['loss_weight'] * summed / len(bones) if bones else 0.0)
