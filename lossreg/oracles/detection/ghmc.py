"""Gradient harmonising classification loss."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from lossreg.oracles.reference import EPS, Array, Inputs, Options, log_sigmoid, times


@np.errstate(all='ignore')
def ghmc(call: str, inputs: Inputs, options: Options) -> Mapping[str, Array]:
    """loss = Σ T/(M S_b) BCE(σ(x), t) over T + EPS, with the density S_b of the bin that |σ(x) - t| falls into.

    An element counts where its weight is above 0. A bin is [b/B, (b + 1)/B), the last one [(B - 1)/B, 1 + 1e-6).
    """
    pred, target, label_weight = inputs['pred'], inputs['target'], inputs['label_weight']
    t = target if target.ndim == 2 else np.array([[float(c == y) for c in range(pred.shape[1])] for y in target])
    t = t.reshape(pred.shape)
    counted = label_weight > 0 if target.ndim == 2 else np.repeat(label_weight[:, None] > 0, pred.shape[1], 1)
    length = np.abs(np.exp(log_sigmoid(pred)) - t)
    number = max(float(counted.sum()), 1.0)
    weights, density = harmonised(length, counted, equal_edges(options['bins'], 1 + 1e-6), number, inputs, options)
    losses = np.zeros(pred.shape)
    for i in np.ndindex(pred.shape):
        if counted[i]:
            losses[i] = weights[i] * -(times(t[i], log_sigmoid(pred[i])) + times(1 - t[i], log_sigmoid(-pred[i])))
    return finish(losses, number, density, options)


def equal_edges(bins: int, last: float) -> Array:
    """b/B, rounded to float32, and the last edge."""
    edges = (np.arange(bins + 1, dtype=np.float32) / np.float32(bins)).astype(np.float64)
    edges[-1] = np.float32(last)
    return edges


def harmonised(
    length: Array, counted: NDArray[np.bool_], edges: Array, number: float, inputs: Inputs, options: Options
) -> tuple[Array, Array]:
    """The weight of each element, number / (M S_b), and the densities after the batch.

    S_b is the number n_b of counted elements in bin b, or, with momentum, μ S_b + (1 - μ) n_b if n_b > 0.
    """
    weights, momentum = np.zeros(length.shape), options['momentum']
    density = np.array(inputs.get('acc_sum', np.zeros(options['bins'])), np.float64)
    bins = [counted & (length >= edges[b]) & (length < edges[b + 1]) for b in range(options['bins'])]
    filled = sum(bool(inside.any()) for inside in bins)
    for b, inside in enumerate(bins):
        if inside.any():
            density[b] = momentum * density[b] + (1 - momentum) * inside.sum()
            weights[inside] = number / density[b] / filled if density[b] != 0 else 0.0
    return weights, density


def finish(losses: Array, number: float, density: Array, options: Options) -> Mapping[str, Array]:
    """The losses, or their sum over number + EPS; and the densities, if they are state."""
    loss = losses.sum() / (number + EPS) if options['reduction'] == 'mean' else losses
    results = {'loss': np.asarray(options['loss_weight'] * loss)}
    return {**results, 'next_acc_sum': density} if options['momentum'] > 0 else results
