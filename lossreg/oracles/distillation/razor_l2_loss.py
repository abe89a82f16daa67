"""mmrazor's L2 loss."""

import numpy as np

from lossreg.oracles.reference import Array, Inputs, Options


@np.errstate(all='ignore')
def razor_l2_loss(call: str, inputs: Inputs, options: Options) -> Array:
    """loss = loss_weight · Σ (s - t)² / samples, or / elements with ``div_element``, or √Σ (s - t)² with ``dist``.

    With ``normalize``, s and t are mult · x / |x| of each sample x, but 0 where x is 0.
    """
    student, teacher = inputs['s_feature'], inputs['t_feature']
    total = 0.0
    for s, t in zip(student, teacher, strict=True):
        if options['normalize']:
            s, t = _unit(s) * options['mult'], _unit(t) * options['mult']
        total += float(((s - t) ** 2).sum())
    if options['dist']:
        return np.asarray(options['loss_weight'] * np.sqrt(total))
    count = student.size if options['div_element'] else len(student)
    return np.asarray(options['loss_weight'] * total / max(count, 1))


def _unit(x: Array) -> Array:
    length = np.sqrt((x**2).sum())
    return x if length == 0 else x / length
