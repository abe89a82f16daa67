"""Cross-entropy: softmax, sigmoid, and sigmoid on the mask of one class."""

import numpy as np

from lossreg.oracles.reference import Array, Inputs, Options, log_sigmoid, log_softmax, reduce, times


@np.errstate(all='ignore')
def cross_entropy_loss(call: str, inputs: Inputs, options: Options) -> Array:
    """loss = reduction of w_i · ℓ_i; ignored elements are 0 and, unless ``avg_non_ignore``, count in the mean.

    ``labels`` and ``pixels`` take the softmax, ``multilabel`` and ``dense`` the sigmoid of each class. ``masks`` is the
    mean over the pixels of each instance's own mask, of shape (1,).
    """
    if call == 'masks':
        return _masks(inputs, options)
    losses, counted = _softmax(inputs, options) if call in ('labels', 'pixels') else _sigmoid(call, inputs, options)
    avg_factor = inputs.get('avg_factor')
    if avg_factor is None and options['avg_non_ignore']:
        avg_factor = np.asarray(counted)
    return reduce(losses, options, avg_factor)


def _softmax(inputs: Inputs, options: Options) -> tuple[Array, int]:
    """ℓ = -(1 - ε) c_y log p_y - ε/C Σ_k c_k log p_k, with p = softmax(x), c = class_weight, ε = label_smoothing.

    Returns the losses and how many samples are not ignored.
    """
    scores, labels, weight = np.moveaxis(inputs['cls_score'], 1, -1), inputs['label'], inputs.get('weight')
    classes, smoothing = scores.shape[-1], options['label_smoothing']
    class_weight = _class_weight(options, classes)
    losses, counted = np.zeros(labels.shape), 0
    for i in np.ndindex(labels.shape):
        if labels[i] == _ignore_index(options):
            continue
        counted += 1
        if weight is not None and weight[i] == 0:
            continue
        log_p = log_softmax(scores[i])
        for k in range(classes):
            target = (1 - smoothing) * (k == labels[i]) + smoothing / classes  # (1 - ε) [k = y] + ε/C
            losses[i] -= times(target * class_weight[k], log_p[k])
        losses[i] *= 1.0 if weight is None else weight[i]
    return losses, counted


def _sigmoid(call: str, inputs: Inputs, options: Options) -> tuple[Array, int]:
    """The binary cross-entropy of each class, with t = [k = y] in ``multilabel``, and t the label in ``dense``.

    Returns the losses and how many elements are not ignored. Every negative label is ignored.
    """
    scores, labels, weight = inputs['cls_score'], inputs['label'], inputs.get('weight')
    class_weight = _class_weight(options, scores.shape[1])
    losses, counted = np.zeros(scores.shape), 0
    for n, k in np.ndindex(scores.shape):
        i = n if call == 'multilabel' else (n, k)  # index of the label and of its weight
        if labels[i] < 0 or labels[i] == _ignore_index(options):
            continue
        counted += 1
        if weight is not None and weight[i] == 0:
            continue
        x, t = float(scores[n, k]), float(labels[i] == k if call == 'multilabel' else labels[i])
        losses[n, k] = _binary(x, t, float(class_weight[k])) * (1.0 if weight is None else weight[i])
    return losses, counted


def _masks(inputs: Inputs, options: Options) -> Array:
    """loss = 1/(N·H·W) Σ_nhw ℓ(x_{n, y_n, h, w}, t_nhw)."""
    scores, targets, labels = inputs['mask_pred'], inputs['mask_target'], inputs['label']
    losses = np.zeros(targets.shape)
    for n, h, w in np.ndindex(targets.shape):
        losses[n, h, w] = _binary(float(scores[n, labels[n], h, w]), float(targets[n, h, w]))
    return reduce(losses, options).reshape(1)


def _binary(x: float, t: float, pos_weight: float = 1.0) -> float:
    """ℓ = -(c t log σ(x) + (1 - t) log σ(-x)), with c = pos_weight."""
    return -float(times(pos_weight * t, log_sigmoid(x)) + times(1 - t, log_sigmoid(-x)))


def _class_weight(options: Options, classes: int) -> Array:
    """c_k: a list, one number for all, or 1."""
    return np.full(classes, 1.0 if options['class_weight'] is None else options['class_weight'])


def _ignore_index(options: Options) -> int:
    return -100 if options['ignore_index'] is None else int(options['ignore_index'])
