"""Equalization loss v2 of long-tailed classes."""

from collections.abc import Mapping

import numpy as np

from lossreg.oracles.reference import Array, Inputs, Options, log_sigmoid


@np.errstate(all='ignore')
def eqlv2_loss(call: str, inputs: Inputs, options: Options) -> Mapping[str, Array]:
    """loss = 1/N Σ_i (-w⁺_y log σ(x_iy) - Σ_{k≠y} w⁻_k log σ(-x_ik)), y = y_i; the last channel has w⁺ = w⁻ = 1.

    w⁻_k = σ(γ (r_k - μ)) and w⁺_k = 1 + α (1 - w⁻_k), with r = ``pos_neg``. Then ``pos_grad`` grows by
    Σ_{i: y_i=k} w⁺_k (1 - σ(x_ik)), ``neg_grad`` by Σ_{i: y_i≠k} w⁻_k σ(x_ik), and r is their ratio.
    """
    scores, labels, classes = inputs['cls_score'], inputs['label'], options['num_classes']
    w_neg = np.append(np.exp(log_sigmoid(options['gamma'] * (inputs['pos_neg'] - options['mu']))), 1.0)
    w_pos = 1 + options['alpha'] * (1 - w_neg)
    pos_grad, neg_grad = inputs['pos_grad'].copy(), inputs['neg_grad'].copy()
    loss = 0.0
    for x, y in zip(scores, labels, strict=True):
        others = np.arange(classes + 1) != y
        loss -= w_pos[y] * log_sigmoid(x[y]) + (w_neg * log_sigmoid(-x))[others].sum()
        if y < classes:
            pos_grad[y] += w_pos[y] * np.exp(log_sigmoid(-x[y]))
        neg_grad += np.where(others, w_neg * np.exp(log_sigmoid(x)), 0.0)[:classes]
    return {
        'loss': np.asarray(options['loss_weight'] * loss / len(labels) if len(labels) else 0.0),
        'next_pos_grad': pos_grad,
        'next_neg_grad': neg_grad,
        'next_pos_neg': pos_grad / (neg_grad + 1e-10),
    }
