"""Partial squared error."""

import numpy as np

from lossreg.oracles.reference import Array, Inputs, Options


@np.errstate(all='ignore')
def ofd_loss(call: str, inputs: Inputs, options: Options) -> Array:
    """loss = loss_weight · Σ (s - t)² / N / mul_factor, without the elements where s ≤ t ≤ 0."""
    student, teacher = inputs['s_feature'], inputs['t_feature']
    total = 0.0
    for s, t in zip(student.flat, teacher.flat, strict=True):
        if not s <= t <= 0:
            total += (s - t) ** 2
    return np.asarray(options['loss_weight'] * total / max(len(student), 1) / options['mul_factor'])
