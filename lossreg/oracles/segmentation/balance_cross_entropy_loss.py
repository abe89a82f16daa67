"""Cross-entropy of the positives and the hardest negatives (OHEM)."""

from collections.abc import Mapping

import numpy as np

from lossreg.oracles.reference import Array, Inputs, Options, log_sigmoid, times


@np.errstate(all='ignore')
def balance_cross_entropy_loss(call: str, inputs: Inputs, options: Options) -> Array | Mapping[str, Array]:
    """loss = (Σ_positives ℓ + Σ_hardest negatives ℓ) / (their number + ε), inside the mask.

    Positives have ⌊t⌋ = 1, negatives ⌊1 - t⌋ = 1; of the negatives the hardest min(all, ⌊ratio · positives⌋) count.
    Without positives loss = Σ ℓ / (number of negatives + ε), but not in the calls ``…origin``, which also returns every
    ℓ.
    """
    pred, gt = inputs['pred'], inputs['gt']
    mask = np.broadcast_to(np.expand_dims(inputs['mask'], 1) if 'mask' in inputs else 1.0, gt.shape)
    losses, positive, negative = np.zeros(gt.shape), [], []
    for i in np.ndindex(gt.shape):
        if mask[i] == 0:
            continue
        losses[i] = _binary(float(pred[i]), float(gt[i]), options['logits'])
        if np.trunc(gt[i]) == 1:
            positive.append(losses[i])
        elif np.trunc(1 - gt[i]) == 1:
            negative.append(losses[i])
    count = min(len(negative), int(len(positive) * options['negative_ratio']))
    # NaN is the hardest of all, and comes first once the order is reversed
    hardest = np.sort(np.asarray(negative))[::-1][:count]
    balance = (np.sum(positive) + hardest.sum()) / (len(positive) + count + options['eps'])
    if not positive and not call.endswith('origin'):
        balance = losses.sum() / (len(negative) + options['eps'])
    if np.isnan(gt[mask != 0]).any():  # NaN is neither positive nor negative, but must not be skipped
        balance = np.nan
    return {'loss': np.asarray(balance), 'origin': losses} if call.endswith('origin') else np.asarray(balance)


def _binary(p: float, t: float, logits: bool) -> float:
    """-(t log p + (1 - t) log(1 - p)), logarithms at least -100, as in torch; with p the sigmoid of a logit."""
    if logits:
        return -float(times(t, log_sigmoid(p)) + times(1 - t, log_sigmoid(-p)))
    if not 0 <= p <= 1:
        return np.nan
    return -(t * max(float(np.log(p)), -100.0) + (1 - t) * max(float(np.log1p(-p)), -100.0))
