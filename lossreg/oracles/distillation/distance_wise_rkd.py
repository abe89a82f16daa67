"""Relational distillation of distances."""

import numpy as np

from lossreg.oracles.reference import Array, Inputs, Options
from lossreg.oracles.triplets import distances


@np.errstate(all='ignore')
def distance_wise_rkd(call: str, inputs: Inputs, options: Options) -> Array:
    """loss = loss_weight · mean over all (i, j) of h(u_S - u_T), u = distance / its mean over i ≠ j, and 0 for i = j.

    h(e) = e² / 2 where |e| < 1, else |e| - 1/2.
    """
    student, teacher = (flat(inputs[name], options['with_l2_norm']) for name in ('preds_S', 'preds_T'))
    if not len(student):
        return np.asarray(0.0)
    return np.asarray(options['loss_weight'] * smooth_l1(_relative(student) - _relative(teacher)).mean())


def _relative(x: Array) -> Array:
    d = distances(x, squared=False)
    others = ~np.eye(len(x), dtype=bool)
    return np.where(others, d / d[others].mean() if others.any() else 0.0, 0.0)


def flat(x: Array, unit: bool) -> Array:
    """One row per sample, of length 1 if ``unit``; lengths count as at least 1e-12."""
    rows = x.reshape(len(x), int(np.prod(x.shape[1:])))
    if unit:
        rows = np.array([row / np.maximum(np.sqrt(row @ row), 1e-12) for row in rows]).reshape(rows.shape)
    return rows


def smooth_l1(error: Array) -> Array:
    """h(e)."""
    e = np.abs(error)
    return np.where(e < 1, e**2 / 2, e - 0.5)
