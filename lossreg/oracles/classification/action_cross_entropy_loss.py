"""mmaction's cross-entropy: of class indices or of class probabilities."""

import numpy as np

from lossreg.oracles.reference import Array, Inputs, Options, log_softmax, times


@np.errstate(all='ignore')
def action_cross_entropy_loss(call: str, inputs: Inputs, options: Options) -> Array:
    """loss = loss_weight · -Σ_n Σ_k c_k t_nk log p_nk / W, with p = softmax(x) and c = class_weight.

    ``labels``: t_nk = [k = y_n], and W = Σ_n c_y; samples with y = -100 do not count. ``probabilities``: t is the
    label, and W = Σ_n Σ_k c_k t_nk, or, without class weights, the number of samples.
    """
    scores, labels = inputs['cls_score'], inputs['label']
    unweighted = options['class_weight'] is None
    c = np.ones(scores.shape[1]) if unweighted else np.asarray(options['class_weight'])
    summed, count = 0.0, 0.0
    for x, label in zip(scores, labels, strict=True):
        if call == 'probabilities':
            count += 1.0 if unweighted else float((c * label).sum())
            for k in range(len(x)):
                summed -= float(times(c[k] * label[k], log_softmax(x)[k]))
        elif label != -100 and c[label] != 0:
            count += c[label]
            summed -= c[label] * float(log_softmax(x)[label])
    return np.asarray(options['loss_weight'] * summed / count if count != 0 else 0.0)
