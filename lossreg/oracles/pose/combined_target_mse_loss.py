"""Mean squared error of a heatmap and two offset maps per keypoint."""

import numpy as np

from lossreg.oracles.reference import Array, Inputs, Options, weighted


@np.errstate(all='ignore')
def combined_target_mse_loss(call: str, inputs: Inputs, options: Options) -> Array:
    """loss = loss_weight · 1/K Σ_k 1/2 (mse of w x and w t + mse of w t x' and w t t' + mse of w t x'' and w t t'').

    Channels 3 k, 3 k + 1 and 3 k + 2 hold the heatmap (x, t) and the offsets (x', t' and x'', t'') of keypoint k.
    """
    output, target = inputs['output'], inputs['target']
    samples, channels, height, width = output.shape
    total = 0.0
    for n, k in np.ndindex(samples, channels // 3):
        weight = inputs['target_weights'][n, k] if options['use_target_weight'] else None
        heatmap = weighted(target[n, 3 * k], weight)
        errors = [weighted(output[n, 3 * k] - target[n, 3 * k], weight)]
        for c in (3 * k + 1, 3 * k + 2):
            offset = output[n, c] - target[n, c]
            errors.append(heatmap * (offset if weight is None else np.where(weight == 0, 0.0, offset)))
        total += sum(0.5 * (error**2).sum() for error in errors)
    count = samples * (channels // 3) * height * width
    return np.asarray(options['loss_weight'] * total / count if count else 0.0)
