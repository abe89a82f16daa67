"""Cross-entropy of the pixels that are predicted worst."""

import numpy as np

from lossreg.oracles.reference import Array, Inputs, Options, log_softmax


@np.errstate(all='ignore')
def ohem_cross_entropy(call: str, inputs: Inputs, options: Options) -> Array:
    """loss = mean of -c_y log p_y over the pixels with p_y < max(θ, p_(m)), or 0 where there is none.

    p_(m) is element m = min_kept, from 0, of the p_y in ascending order, or the last. NaN sorts first.
    """
    score, target = inputs['score'], inputs['target']
    c = np.ones(score.shape[1]) if options['class_weight'] is None else options['class_weight']
    pixels: list[tuple[float, float]] = []  # p_y and the loss of each pixel that is not ignored
    for i in np.ndindex(target.shape):
        if target[i] == options['ignore_label']:
            continue
        log_p = float(log_softmax(score[(i[0], slice(None), *i[1:])])[target[i]])
        pixels.append((float(np.exp(log_p)), -float(c[target[i]]) * log_p))
    if not pixels:
        return np.asarray(0.0)
    rising = sorted(0.0 if np.isnan(p) else p for p, _ in pixels)
    threshold = max(options['thres'], rising[min(max(1, options['min_kept']), len(rising) - 1)])
    hard = [loss for p, loss in pixels if p < threshold or np.isnan(p)]
    return np.asarray(options['loss_weight'] * np.mean(hard) if hard else 0.0)
