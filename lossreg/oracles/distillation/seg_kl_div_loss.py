"""mmseg's distillation loss between two softmaxes."""

import numpy as np

from lossreg.oracles.reference import Array, Inputs, Options, log_softmax, times


@np.errstate(all='ignore')
def seg_kl_div_loss(call: str, inputs: Inputs, options: Options) -> Array:
    """loss = mean or sum over each sample of T² t (log t - p), with p = softmax(x / T) and t = softmax(y / T)."""
    x, y, temperature = inputs['input'], inputs['target'], options['temperature']
    losses = np.zeros(x.shape)
    for n, *at in np.ndindex((x.shape[0], *x.shape[2:])):
        pixel = (n, slice(None), *at)
        p, log_t = np.exp(log_softmax(x[pixel] / temperature)), log_softmax(y[pixel] / temperature)
        losses[pixel] = temperature**2 * (times(np.exp(log_t), log_t) - np.exp(log_t) * p)
    if options['reduction'] == 'none':
        return losses
    samples = losses.reshape(len(x), -1) if len(x) else np.zeros((0, 1))
    return np.asarray(samples.sum(1) if options['reduction'] == 'sum' else samples.mean(1))
