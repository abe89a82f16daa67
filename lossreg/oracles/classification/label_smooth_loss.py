"""Cross-entropy against smoothed labels."""

import numpy as np
from numpy.typing import NDArray

from lossreg.oracles.reference import Array, Inputs, Options, log_sigmoid, log_softmax, times


@np.errstate(all='ignore')
def label_smooth_loss(call: str, inputs: Inputs, options: Options) -> Array:
    """loss = reduction of w_n · ℓ_n, with s the smoothed label and c = class_weight.

    Softmax: ℓ_n = -Σ_k c_k s_k log p_k. Sigmoid: ℓ_nk = -c_k (b_k s_k log σ(x_k) + (1 - s_k) log σ(-x_k)), with
    b = pos_weight. The sigmoid is the default of the mode ``multi_label``.
    """
    scores, labels, weight = inputs['cls_score'], inputs['label'], inputs.get('weight')
    count, classes = scores.shape
    sigmoid = options['mode'] == 'multi_label' if options['use_sigmoid'] is None else options['use_sigmoid']
    c, b = _per_class(options['class_weight'], classes), _per_class(options['pos_weight'], classes)
    losses = np.zeros(scores.shape if sigmoid else count)
    for n in range(count):
        if weight is not None and weight[n] == 0:
            continue
        x, w = scores[n], 1.0 if weight is None else weight[n]
        target = (np.arange(classes) == labels[n]).astype(np.float64) if call == 'labels' else labels[n]
        s = _smoothed(target, options)
        for k in range(classes):
            if sigmoid:
                positive, negative = times(b[k] * s[k], log_sigmoid(x[k])), times(1 - s[k], log_sigmoid(-x[k]))
                losses[n, k] = -w * times(c[k], positive + negative)
            else:
                losses[n] -= w * times(c[k] * s[k], log_softmax(x)[k])
    return _reduced(losses, options, inputs.get('avg_factor'))


def _smoothed(t: Array, options: Options) -> Array:
    """original: (1 - ε) t + ε/K. classy_vision: (t + ε/K) / (1 + ε). multi_label: 1 - ε where t > 0, else ε."""
    eps = options['label_smooth_val']
    if options['mode'] == 'original':
        return np.asarray((1 - eps) * t + eps / len(t))
    if options['mode'] == 'classy_vision':
        return np.asarray((t + eps / len(t)) / (1 + eps))
    return np.where(np.isnan(t), t, np.where(t > 0, 1 - eps, eps))


def _per_class(weights: list[float] | None, classes: int) -> Array:
    return np.ones(classes) if weights is None else np.asarray(weights, np.float64)


def _reduced(losses: Array, options: Options, avg_factor: NDArray[np.float64] | None) -> Array:
    """loss_weight times the losses, their sum, or that over their number or avg_factor; 0 over nothing."""
    if options['reduction'] == 'none':
        return np.asarray(options['loss_weight'] * losses)
    by = 1 if options['reduction'] == 'sum' else losses.size if avg_factor is None else avg_factor
    return np.asarray(options['loss_weight'] * losses.sum() / by if by != 0 else 0.0)
