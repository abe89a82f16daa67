"""L1 loss of coordinates."""

import numpy as np

from lossreg.oracles.reference import Array, Inputs, Options, reduce, weighted


@np.errstate(all='ignore')
def pose_l1_loss(call: str, inputs: Inputs, options: Options) -> Array:
    """loss = reduction of |w (x - t)|."""
    return reduce(np.abs(weighted_errors(inputs, options)), options)


def weighted_errors(inputs: Inputs, options: Options) -> Array:
    """w (x - t) of each coordinate; w is 1 unless ``use_target_weight``."""
    output, target = inputs['output'], inputs['target']
    errors = np.zeros(output.shape)
    for n in range(len(output)):
        weight = coordinate_weight(inputs)[n] if options['use_target_weight'] else None
        errors[n] = weighted(output[n] - target[n], weight)
    return errors


def coordinate_weight(inputs: Inputs) -> Array:
    """``target_weight``; one weight per joint applies to all of its coordinates."""
    weight = inputs['target_weight']
    return weight[..., None] if weight.ndim < inputs['output'].ndim else weight
