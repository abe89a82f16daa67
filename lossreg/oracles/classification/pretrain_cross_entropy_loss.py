"""mmpretrain's cross-entropy: of class indices, of class probabilities or of independent labels."""

import numpy as np

from lossreg.oracles.reference import Array, Inputs, Options, log_sigmoid, log_softmax, reduce, times


@np.errstate(all='ignore')
def pretrain_cross_entropy_loss(call: str, inputs: Inputs, options: Options) -> Array:
    """loss = reduction of w_n · ℓ_n, with c = class_weight and b = pos_weight.

    ``labels``: ℓ_n = -c_y log p_y, and 0 where y = -100. ``probabilities``: ℓ_n = -Σ_k c_k t_k log p_k, p = softmax(x).
    ``multi_label``: ℓ_nk = -c_k (b_k t_k log σ(x_k) + (1 - t_k) log σ(-x_k)). The mean includes ignored samples.
    """
    scores, labels, weight = inputs['cls_score'], inputs['label'], inputs.get('weight')
    count, classes = scores.shape
    c = np.ones(classes) if options['class_weight'] is None else np.asarray(options['class_weight'])
    b = np.ones(classes) if options['pos_weight'] is None else np.asarray(options['pos_weight'])
    losses = np.zeros(scores.shape if call == 'multi_label' else count)
    for n in range(count):
        w = 1.0 if weight is None else weight[n]
        if w == 0 or (call == 'labels' and (labels[n] == -100 or c[labels[n]] == 0)):
            continue
        if call == 'labels':
            losses[n] = -w * c[labels[n]] * log_softmax(scores[n])[labels[n]]
            continue
        for k in range(classes):
            x, t = scores[n, k], labels[n, k]
            if call == 'probabilities':
                losses[n] -= w * times(c[k] * t, log_softmax(scores[n])[k])
            elif c[k] != 0:
                losses[n, k] = -w * c[k] * (times(b[k] * t, log_sigmoid(x)) + times(1 - t, log_sigmoid(-x)))
    return reduce(losses, options, inputs.get('avg_factor'), eps=0.0)
