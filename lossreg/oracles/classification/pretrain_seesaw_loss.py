"""Seesaw loss of long-tailed classes, called as in mmpretrain."""

from collections.abc import Mapping

import numpy as np

from lossreg.oracles.classification.seesaw_loss import add_samples, log_compensation, seesaw
from lossreg.oracles.reference import Array, Inputs, Options, reduce


@np.errstate(all='ignore')
def pretrain_seesaw_loss(call: str, inputs: Inputs, options: Options) -> Mapping[str, Array]:
    """loss = reduction of w_i · -log(exp(x_iy) / Σ_j M_yj C_ij exp(x_ij)); a mean is over ``avg_factor`` itself.

    The counts N include the samples of this batch.
    """
    scores, labels, factor = inputs['cls_score'], inputs['labels'], inputs.get('avg_factor')
    counts = add_samples(inputs['cum_samples'], labels)
    compensation = inputs.get('held_compensation', log_compensation(scores, labels, options))
    weight = inputs.get('weight', np.ones(len(labels)))
    losses = np.zeros(len(labels))
    for i, y in enumerate(labels):
        if weight[i] != 0:
            losses[i] = weight[i] * seesaw(scores[i], y, counts, compensation[i], options)
    if factor is not None:
        loss = np.asarray(options['loss_weight'] * losses.sum() / factor if factor != 0 else 0.0)
    else:
        loss = reduce(losses, options)
    return {'loss': loss, 'next_cum_samples': counts, 'held_compensation': compensation}
