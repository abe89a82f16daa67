"""Focal loss on the softmax."""

import numpy as np
from numpy.typing import NDArray

from lossreg.oracles.reference import EPS, Array, Inputs, Options


@np.errstate(all='ignore')
def softmax_focal_loss(call: str, inputs: Inputs, options: Options) -> Array:
    """loss = reduction of -w α_y (1 - p_y)^γ log p_y, with p = softmax(x), over samples that are not ignored.

    Arrays, not loops: there are many pixels, and finite differences evaluate each of them twice.
    """
    scores, labels = inputs['pred'], inputs['target']
    valid = labels != options['ignore_index']
    y = np.where(valid, labels, 0)
    weight = _alpha(options)[np.minimum(y, len(_alpha(options)) - 1)] * inputs.get('weight', np.ones(y.shape))
    losses = np.where(valid & (weight != 0), weight * _focal(scores, y, options['gamma']), 0.0)
    if options['reduction'] == 'none':
        return np.asarray(options['loss_weight'] * losses)
    by = 1.0 if options['reduction'] == 'sum' else valid.sum()
    if 'avg_factor' in inputs:
        by = inputs['avg_factor'] + EPS if inputs['avg_factor'] != 0 else 0.0
    return np.asarray(options['loss_weight'] * losses.sum() / by if by != 0 else 0.0, np.float64)


def _focal(x: Array, y: NDArray[np.int64], gamma: float) -> Array:
    """(1 - p_y)^γ · -log p_y, with 1 - p_y = Σ_{k ≠ y} p_k; where that is below 1/2, log p_y = log(1 - (1 - p_y))."""
    shifted = x - x.max(axis=1, keepdims=True)
    log_p = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    here = np.expand_dims(y, 1)
    log_p_y = np.take_along_axis(log_p, here, axis=1).squeeze(1)
    others = np.exp(log_p)
    np.put_along_axis(others, here, 0.0, axis=1)
    rest = others.sum(axis=1)
    nll = np.where((rest < 0.5) & ~np.isnan(log_p_y), -np.log1p(-rest), -log_p_y)
    result: Array = np.power(rest, gamma) * nll
    return result


def _alpha(options: Options) -> Array:
    """α of each class; a single number applies to all, 1 by default."""
    return np.atleast_1d(np.asarray(1.0 if options['alpha'] is None else options['alpha'], np.float64))
