"""Cross-entropy against a teacher's decisions."""

import numpy as np

from lossreg.oracles.reference import Array, Inputs, Options, log_softmax


@np.errstate(all='ignore')
def razor_cross_entropy_loss(call: str, inputs: Inputs, options: Options) -> Array:
    """loss = -loss_weight · mean over samples, or places, of log softmax(s)_y, y the class of the largest t."""
    return np.asarray(options['loss_weight'] * mean_of_decisions(inputs['preds_S'], inputs['preds_T']))


def mean_of_decisions(student: Array, teacher: Array) -> float:
    """The mean loss; classes are in dimension 1."""
    student, teacher = np.moveaxis(student, 1, -1), np.moveaxis(teacher, 1, -1)
    losses = np.zeros(student.shape[:-1])
    for place in np.ndindex(losses.shape):
        spoilt = np.isnan(teacher[place]).any()
        losses[place] = np.nan if spoilt else -log_softmax(student[place])[np.argmax(teacher[place])]
    return float(losses.mean()) if losses.size else 0.0
