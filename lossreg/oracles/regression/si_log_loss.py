"""Scale-invariant logarithmic loss of depth maps."""

import math

import numpy as np

from lossreg.oracles.reference import Array, Inputs, Options, reduce


@np.errstate(all='ignore')
def si_log_loss(call: str, inputs: Inputs, options: Options) -> Array:
    """loss = reduction of w_n √(mean d² - (mean d)² / 2), d = log t - log max(p, ε), where t > ε and p is not NaN."""
    pred, target, weight, eps = inputs['pred'], inputs['target'], inputs.get('weight'), options['eps']
    losses = np.zeros(len(pred))
    for n in range(len(pred)):
        if weight is not None and weight[n] == 0:
            continue
        differences = [
            math.log(t) - math.log(max(p, eps))
            for p, t in zip(pred[n].ravel(), target[n].ravel(), strict=True)
            if t > eps and not math.isnan(p)
        ]
        if differences:
            squares = sum(d * d for d in differences) / len(differences)
            mean = sum(differences) / len(differences)
            losses[n] = math.sqrt(squares - mean * mean / 2) * (1.0 if weight is None else weight[n])
    return reduce(losses, options, inputs.get('avg_factor'))
