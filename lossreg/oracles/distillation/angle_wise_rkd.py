"""Relational distillation of angles."""

import numpy as np

from lossreg.oracles.distillation.distance_wise_rkd import flat, smooth_l1
from lossreg.oracles.reference import Array, Inputs, Options


@np.errstate(all='ignore')
def angle_wise_rkd(call: str, inputs: Inputs, options: Options) -> Array:
    """loss = loss_weight · mean over all (i, j, k) of h(a_S - a_T), a = cosine of the angle at i between j and k.

    h(e) = e² / 2 where |e| < 1, else |e| - 1/2.
    """
    student, teacher = (flat(inputs[name], options['with_l2_norm']) for name in ('preds_S', 'preds_T'))
    if not len(student):
        return np.asarray(0.0)
    return np.asarray(options['loss_weight'] * smooth_l1(_angles(student) - _angles(teacher)).mean())


def _angles(x: Array) -> Array:
    n = len(x)
    angles = np.zeros((n, n, n))
    for i, j, k in np.ndindex(n, n, n):
        angles[i, j, k] = _unit(x[j] - x[i]) @ _unit(x[k] - x[i])
    return angles


def _unit(v: Array) -> Array:
    result: Array = v / np.maximum(np.sqrt(v @ v), 1e-12)
    return result
