"""Hinge loss of many classes."""

import numpy as np

from lossreg.oracles.reference import Array, Inputs, Options, reduce_as_torch


@np.errstate(all='ignore')
def multi_class_hinge_loss(call: str, inputs: Inputs, options: Options) -> Array:
    """loss = reduction of the largest max(0, margin + s_j - s_y) of the wrong classes j, or of their sum.

    ``crammer_singer`` takes the largest, ``weston_watkins`` the sum; with ``squared`` each is squared first.
    """
    scores, labels = inputs['input'], inputs['target']
    losses = np.zeros(len(scores))
    for n, (s, y) in enumerate(zip(scores, labels, strict=True)):
        hinges = [np.maximum(options['margin'] + s[j] - s[y], 0) for j in range(len(s)) if j != y]
        hinges = [hinge**2 if options['squared'] else hinge for hinge in hinges]
        losses[n] = np.sum(hinges) if options['formulation'] == 'weston_watkins' else np.max(hinges, initial=0)
    return reduce_as_torch(losses, options)
