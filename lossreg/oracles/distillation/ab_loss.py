"""Activation boundaries."""

import numpy as np

from lossreg.oracles.reference import Array, Inputs, Options


@np.errstate(all='ignore')
def ab_loss(call: str, inputs: Inputs, options: Options) -> Array:
    """loss = loss_weight · 3 / 1000 · Σ / N of (s + m)² where t ≤ 0 and s > -m, and (s - m)² where t > 0 and s ≤ m."""
    student, teacher, m = inputs['s_feature'], inputs['t_feature'], options['margin']
    total = 0.0
    for s, t in zip(student.flat, teacher.flat, strict=True):
        if np.isnan(s) or np.isnan(t):
            total = np.nan
        elif t <= 0 and s > -m:
            total += (s + m) ** 2
        elif t > 0 and s <= m:
            total += (s - m) ** 2
    return np.asarray(options['loss_weight'] * 3 / 1000 * total / max(len(student), 1))
