"""Reconstruction of masked patches or pixels."""

import numpy as np

from lossreg.oracles.reference import Array, Inputs, Options


@np.errstate(all='ignore')
def pixel_reconstruction_loss(call: str, inputs: Inputs, options: Options) -> Array:
    """loss = Σ m · d / Σ m / channel, with d = |x - t| or (x - t)²; without a mask m the mean of d.

    ``patches``: d is the mean over a patch. ``images``: m has one number per pixel, d one per channel.
    """
    x, t, mask = inputs['pred'], inputs['target'], inputs.get('mask')
    summed, count = 0.0, 0.0
    for i in np.ndindex(x.shape):
        # the factor of the error, and its part of the divisor
        if mask is None:
            m, counts = 1.0, 1.0
        elif call == 'patches':
            m = counts = mask[i[:2]] / x.shape[2]
        else:
            m = mask[i[0], 0, i[2], i[3]]
            counts = m if i[1] == 0 else 0.0
        count += counts
        if m != 0:
            summed += m * float(abs(x[i] - t[i]) if options['criterion'] == 'L1' else (x[i] - t[i]) ** 2)
    channel = 1 if mask is None or options['channel'] is None else options['channel']
    return np.asarray(summed / count / channel if count != 0 else 0.0)
