"""Cross-entropy of pixels: softmax, sigmoid, and sigmoid on the mask of one class."""

import numpy as np

from lossreg.oracles.reference import EPS, Array, Inputs, Options, log_sigmoid, log_softmax, reduce, times


@np.errstate(all='ignore')
def seg_cross_entropy_loss(call: str, inputs: Inputs, options: Options) -> Array:
    """loss = reduction of w_i · ℓ_i; ignored pixels are 0. A mean that is not over avg_factor is Σ / (D + EPS):

    with the softmax, D is the number of pixels, or, with class weights c, the sum of their c_y; with the sigmoid, D
    exists only with ``avg_non_ignore`` and is the number of elements. Without ``avg_non_ignore`` ignored pixels count
    in D, but a label that is not a class has no c_y. ``masks`` is a mean over the pixels of each instance's own mask.
    """
    if call == 'masks':
        return _masks(inputs, options)
    if call in ('pixels', 'labels'):
        losses, divisor = _softmax(inputs, options)
        has_divisor = True
    else:
        losses, divisor = _dense(inputs, options) if call == 'dense' else _sigmoid(inputs, options)
        has_divisor = bool(options['avg_non_ignore'])
    avg_factor = inputs.get('avg_factor')
    if options['reduction'] == 'mean' and avg_factor is None and has_divisor:
        mean = losses.sum() / (divisor + EPS) if divisor != 0 else 0.0
        return np.asarray(options['loss_weight'] * mean)
    return reduce(losses, options, avg_factor)


def _softmax(inputs: Inputs, options: Options) -> tuple[Array, float]:
    """ℓ_i = -c_y log softmax(x)_y, and D."""
    scores, labels, weight = inputs['cls_score'], inputs['label'], inputs.get('weight')
    classes = scores.shape[1]
    c = _class_weight(options, classes)
    losses, divisor = np.zeros(labels.shape), 0.0
    for i in np.ndindex(labels.shape):
        y = int(labels[i])
        ignored = y == options['ignore_index']
        if not (ignored and options['avg_non_ignore']):
            weighs = options['class_weight'] is None or 0 <= y < classes
            divisor += float(c[y] if 0 <= y < classes else 1.0) if weighs else 0.0
        if ignored or (weight is not None and weight[i] == 0) or c[y] == 0:
            continue
        x = scores[(i[0], slice(None), *i[1:])]
        losses[i] = -c[y] * log_softmax(x)[y] * (1.0 if weight is None else weight[i])
    return losses, divisor


def _sigmoid(inputs: Inputs, options: Options) -> tuple[Array, float]:
    """ℓ_ik = the binary cross-entropy of x_ik with t = [y_i = k]; with one class, t = [y_i = 1]. And D."""
    scores, labels, weight = inputs['cls_score'], inputs['label'], inputs.get('weight')
    classes = scores.shape[1]
    c = _class_weight(options, classes)
    losses, divisor = np.zeros(scores.shape), 0.0
    for n, k, *at in np.ndindex(scores.shape):
        i = (n, *at)
        if labels[i] < 0 or labels[i] == options['ignore_index']:
            continue
        divisor += 1
        if weight is not None and weight[i] == 0:
            continue
        t = float(labels[i] == (1 if classes == 1 else k))
        element = (n, k, *at)
        losses[element] = _binary(float(scores[element]), t, float(c[k])) * (1.0 if weight is None else weight[i])
    return losses, divisor


def _dense(inputs: Inputs, options: Options) -> tuple[Array, float]:
    """ℓ = the binary cross-entropy of each element with its own target t. Negative targets are ignored. And D."""
    scores, targets, weight = inputs['cls_score'], inputs['label'], inputs.get('weight')
    c = _class_weight(options, scores.shape[1])
    losses, divisor = np.zeros(scores.shape), 0.0
    for i in np.ndindex(scores.shape):
        if targets[i] < 0 or targets[i] == options['ignore_index']:
            continue
        divisor += 1
        if weight is not None and weight[i] == 0:
            continue
        element = _binary(float(scores[i]), float(targets[i]), float(c[i[1]]))
        losses[i] = element * (1.0 if weight is None else weight[i])
    return losses, divisor


def _masks(inputs: Inputs, options: Options) -> Array:
    """loss = 1/(N·H·W) Σ_nhw ℓ(x_{n, y_n, h, w}, t_nhw)."""
    scores, targets, labels = inputs['mask_pred'], inputs['mask_target'], inputs['label']
    losses = np.zeros(targets.shape)
    for n, h, w in np.ndindex(targets.shape):
        losses[n, h, w] = _binary(float(scores[n, labels[n], h, w]), float(targets[n, h, w]), 1.0)
    return reduce(losses, options).reshape(1)


def _binary(x: float, t: float, pos_weight: float) -> float:
    """ℓ = -(c t log σ(x) + (1 - t) log σ(-x)), with c = pos_weight."""
    return -float(times(pos_weight * t, log_sigmoid(x)) + times(1 - t, log_sigmoid(-x)))


def _class_weight(options: Options, classes: int) -> Array:
    """c_k: a list, or 1."""
    return np.full(classes, 1.0 if options['class_weight'] is None else options['class_weight'])
