"""Helpers of the oracles of rotated boxes as Gaussians: the loop over the pairs, and distances of two Gaussians.

A Gaussian is a tuple: the mean, the standard deviations along its axes, and the axes as unit vectors in rows.
"""

import math
from collections.abc import Callable
from typing import TypeAlias

import numpy as np

from lossreg.oracles.reference import Array, Inputs, Options, reduce

Gaussian: TypeAlias = tuple[Array, Array, Array]


def per_pair(inputs: Inputs, options: Options, loss: Callable[[Array, Array], float]) -> Array:
    """Reduction of w · loss(pred, target); w is one number per pair, or the mean of several."""
    pred, target, weight = inputs['pred'], inputs['target'], inputs.get('weight')
    losses = np.zeros(len(pred))
    for n in range(len(pred)):
        w = 1.0 if weight is None else weight[n].mean()
        if w != 0:
            losses[n] = w * loss(pred[n], target[n])
    return reduce(losses, options, inputs.get('avg_factor'))


def mean_and_axes(box: Array, representation: str = 'xy_wh_r') -> Gaussian:
    """The Gaussian of a box (its deviations are half the box's size), or of deviations and a correlation."""
    if representation == 'xy_wh_r':
        deviations = np.clip(box[2:4], 1e-7, 1e7) / 2
        angle = box[4]
    else:
        a, b = np.maximum(box[2:4], 1e-9)
        r = np.clip(box[4], 1e-7 - 1, 1 - 1e-7)
        # both eigenvalues from the larger one, because their product is known
        largest = (a**2 + b**2 + np.hypot(a**2 - b**2, 2 * r * a * b)) / 2
        deviations = np.sqrt(np.array([largest, a**2 * b**2 * (1 - r**2) / largest]))
        angle = np.arctan2(2 * r * a * b, a**2 - b**2) / 2
    axes = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    return box[:2], deviations, axes


def overlap(p: Gaussian, t: Gaussian) -> Array:
    """Squared cosines of the angles between the axes of p (rows) and those of t (columns)."""
    cosines: Array = (p[2] @ t[2].T) ** 2
    return cosines


def kl_divergence(p: Gaussian, t: Gaussian, alpha: float = 1.0) -> float:
    """KL(t || p) = 1/2 Σ_i (d·u_i / σ_i)² / α² + 1/2 Σ_ij (τ_j / σ_i)² (u_i·v_j)² - 1 + Σ log σ - Σ log τ."""
    offset = p[2] @ (t[0] - p[0]) / p[1]
    spread = (t[1][None, :] / p[1][:, None]) ** 2 * overlap(p, t)
    logarithms = np.log(p[1]).sum() - np.log(t[1]).sum()
    return float((offset**2).sum() / (2 * alpha**2) + spread.sum() / 2 - 1 + logarithms)


def wasserstein(p: Gaussian, t: Gaussian, alpha: float, least: float) -> tuple[float, float]:
    """|d|² + α² (tr S_p + tr S_t - 2 sqrt(tr(S_p S_t) + 2 s)), and s = sqrt(det S_p det S_t), s² at least ``least``."""
    s = math.sqrt(np.maximum((np.prod(p[1]) * np.prod(t[1])) ** 2, least))
    trace = (np.outer(p[1], t[1]) ** 2 * overlap(p, t)).sum()
    shape = (p[1] ** 2).sum() + (t[1] ** 2).sum() - 2 * np.sqrt(trace + 2 * s)
    return float(((t[0] - p[0]) ** 2).sum() + alpha**2 * shape), s


def bhattacharyya(p: Gaussian, t: Gaussian) -> float:
    """1/8 d^T S^-1 d + 1/2 log (det S / sqrt(det S_p det S_t)), with S the mean of both covariances.

    det (S_p + S_t) = det S_p + det S_t + Σ_ij σ_i² τ_j² (1 - (u_i·v_j)²).
    """
    crossed = (np.outer(p[1], t[1]) ** 2 * (1 - overlap(p, t))).sum()
    det_p, det_t = np.prod(p[1]) ** 2, np.prod(t[1]) ** 2
    det = det_p + det_t + crossed
    # d^T (S_p + S_t)^-1 d: the adjugate of Σ σ² u u^T is Σ σ² n n^T, with n orthogonal to u
    offset = t[0] - p[0]
    square = 0.0
    for deviations, axes in (p[1:], t[1:]):
        for deviation, axis in zip(deviations, axes, strict=True):
            square += deviation**2 * (axis[0] * offset[1] - axis[1] * offset[0]) ** 2
    return float(square / det / 4 + np.log(det / (4 * np.sqrt(det_p * det_t))) / 2)
