"""Lovasz losses: the Lovasz extension of the Jaccard loss, over classes (softmax) or for one (hinge)."""

import numpy as np
from numpy.typing import NDArray

from lossreg.oracles.reference import Array, Inputs, Options, log_softmax, reduce


@np.errstate(all='ignore')
def lovasz_loss(call: str, inputs: Inputs, options: Options) -> Array:
    """loss = the loss of all images as one, or, with ``per_image``, reduction of the loss of each image."""
    return lovasz(call, inputs, options, bool(options['per_image']))


def lovasz(call: str, inputs: Inputs, options: Options, per_image: bool) -> Array:
    """The same, with ``per_image`` as an argument, because the hosts name the option differently."""
    scores, labels = inputs['cls_score'], inputs['label']
    if call.startswith('binary'):
        scores = scores.reshape(labels.shape)
    images = [[n] for n in range(len(labels))] if per_image else [list(range(len(labels)))]
    losses = np.zeros(len(images))
    for at, image in enumerate(images):
        pixels, truth = [], []  # the scores and the label of each pixel that is not ignored
        for n in image:
            for i in np.ndindex(labels.shape[1:]):
                if labels[(n, *i)] != options['ignore_index']:
                    pixels.append(scores[(n, *i)] if call.startswith('binary') else scores[(n, slice(None), *i)])
                    truth.append(int(labels[(n, *i)]))
        if pixels:
            binary = call.startswith('binary')
            losses[at] = _hinge(pixels, truth) if binary else _softmax(pixels, truth, options)
    if per_image:
        return reduce(losses, options, inputs.get('avg_factor'))
    return np.asarray(options['loss_weight'] * losses[0])


def _softmax(scores: list[Array], labels: list[int], options: Options) -> float:
    """Mean over the classes k of c_k times the extension at e = |[y = k] - p_k|."""
    p = [np.exp(log_softmax(x)) for x in scores]
    every = range(len(p[0]))
    c = np.ones(len(p[0])) if options['class_weight'] is None else options['class_weight']
    wanted = options['classes']
    if wanted == 'present':
        chosen = [k for k in every if k in labels]
    else:
        chosen = list(every) if wanted == 'all' else list(wanted)
    total = 0.0
    for k in chosen:
        errors = np.array([abs((y == k) - q[k]) for y, q in zip(labels, p, strict=True)])
        total += c[k] * _extension(errors, np.array(labels) == k)
    return total / len(chosen)


def _hinge(scores: list[Array], labels: list[int]) -> float:
    """The extension at e = max(0, 1 - s x), with s = 1 in the foreground, else -1."""
    errors = np.array([np.maximum(0.0, 1 - (2 * y - 1) * x) for y, x in zip(labels, scores, strict=True)])
    return _extension(errors, np.array(labels) == 1)


def _extension(errors: Array, foreground: NDArray[np.bool_]) -> float:
    """Σ_i e_(i) (Δ(S_i) - Δ(S_{i-1})): descending errors, S_i the first i, Δ(S) = |S| / |F ∪ S|, 0 for an empty S."""
    if np.isnan(errors).any():
        return np.nan
    order = sorted(range(len(errors)), key=lambda i: -errors[i])
    total = previous = 0.0
    union = int(foreground.sum())
    for size, i in enumerate(order, start=1):
        union += not foreground[i]
        total += errors[i] * (size / union - previous)
        previous = size / union
    return total
