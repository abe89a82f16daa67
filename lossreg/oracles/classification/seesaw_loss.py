"""Seesaw loss of long-tailed classes."""

from collections.abc import Mapping

import numpy as np

from lossreg.oracles.reference import Array, Inputs, Options, log_softmax, reduce


@np.errstate(all='ignore')
def seesaw_loss(call: str, inputs: Inputs, options: Options) -> Mapping[str, Array]:
    """The losses of classes and of objectness; N counts the samples of each class, including this batch.

    Classes, over samples that are not background: w_i · -log(exp(x_iy) / Σ_j M_yj C_ij exp(x_ij)). Objectness: w_i ·
    -log softmax of the last two channels, at the first of them, or at the second for background.
    """
    scores, labels, classes = inputs['cls_score'], inputs['labels'], options['num_classes']
    counts = add_samples(inputs['cum_samples'], labels)
    compensation = inputs.get('held_compensation', log_compensation(scores[:, :classes], labels, options))
    weight = inputs.get('label_weights', np.ones(len(labels)))
    of_classes, of_objectness = np.zeros(len(labels)), np.zeros(len(labels))
    for i, y in enumerate(labels):
        if weight[i] == 0:
            continue
        of_objectness[i] = -weight[i] * log_softmax(scores[i, classes:])[1 if y == classes else 0]
        if y < classes:
            of_classes[i] = weight[i] * seesaw(scores[i, :classes], y, counts[:classes], compensation[i], options)
    factor = inputs.get('avg_factor')
    foreground = np.asarray(float((labels < classes).sum()))
    if options['reduction'] == 'mean' and factor is None:
        mean = of_classes.sum() / foreground if foreground else 0.0
        loss_classes = np.asarray(options['loss_weight'] * mean)
    else:
        loss_classes = reduce(of_classes, options, factor)
    loss_objectness = reduce(of_objectness, options, factor)
    state = {'next_cum_samples': counts, 'held_compensation': compensation}
    if call == 'total':
        return {'loss': np.asarray(loss_classes + loss_objectness), **state}
    return {'loss_cls_objectness': loss_objectness, 'loss_cls_classes': loss_classes, **state}


def add_samples(counts: Array, labels: Array) -> Array:
    """The counts after adding each label."""
    counts = counts.copy()
    for y in labels:
        counts[y] += 1
    return counts


def log_compensation(scores: Array, labels: Array, options: Options) -> Array:
    """log C_ij = q · log max(1, s_ij / max(s_iy, ε)), with s = softmax(x), a constant for the gradient; 0 if y = C."""
    result = np.zeros(scores.shape)
    for i, y in enumerate(labels):
        if y < scores.shape[1] and options['q'] > 0:
            log_s = log_softmax(scores[i])
            result[i] = options['q'] * np.maximum(0.0, log_s - np.maximum(log_s[y], np.log(options['eps'])))
    return result


def seesaw(scores: Array, y: int, counts: Array, compensation: Array, options: Options) -> float:
    """-log(exp(x_y) / Σ_j M_yj C_j exp(x_j)), with log C_j = ``compensation`` and M_yj = min(1, N_j / N_y)^p, N ≥ 1."""
    mitigation = np.zeros(len(scores))
    if options['p'] > 0:
        n = np.maximum(counts, 1.0)
        mitigation = options['p'] * np.minimum(0.0, np.log(n / n[y]))
    return -float(log_softmax(scores + mitigation + compensation)[y])
