"""Binary cross-entropy of the tags of videos, all together or category by category."""

from collections.abc import Mapping

import numpy as np

from lossreg.oracles.reference import Array, Inputs, Options, log_sigmoid, times


@np.errstate(all='ignore')
def hvu_loss(call: str, inputs: Inputs, options: Options) -> Mapping[str, Array]:
    """The losses of tags, with BCE = -t log σ(x) - (1 - t) log σ(-x).

    ``tags``: loss_cls = loss_weight · mean over samples of Σ_k m_k BCE_k / Σ_k m_k, undivided with 'sum'; m = 1 without
    mask. ``categories``: loss_j = Σ_n m_nj Σ_{k∈j} BCE_nk / (C_j Σ_n m_nj), without C_j for 'sum', and 0 where
    Σ_n m_nj < 0.5; loss_cls = loss_weight · Σ w_j loss_j / Σ w_j over the remaining categories.
    """
    x, t = inputs['cls_score'], inputs['label']
    bce = -(times(t, log_sigmoid(x)) + times(1 - t, log_sigmoid(-x)))
    mean, scale, samples = options['reduction'] == 'mean', options['loss_weight'], len(x)
    if call == 'tags':
        m = inputs.get('mask', np.ones(x.shape))
        loss = 0.0
        for n in range(samples):
            counted = m[n] != 0
            share = m[n].sum() if mean else 1.0
            loss += float((m[n] * bce[n])[counted].sum() / share) / samples if counted.any() else 0.0
        return {'loss_cls': np.asarray(scale * loss)}
    m = inputs.get('category_mask', np.ones((samples, len(options['categories']))))
    results, average, shares = {}, 0.0, 0.0
    weights = dict(zip(options['categories'], options['category_loss_weights'], strict=True))
    has_one = {}
    start = 0
    for j, (name, tags) in enumerate(zip(options['categories'], options['category_nums'], strict=True)):
        own, start = bce[:, start : start + tags], start + tags
        # without a mask there is always a loss, even over no samples
        has_one[name] = 'category_mask' not in inputs or m[:, j].sum() >= 0.5
        loss = 0.0
        for n in range(samples):
            if has_one[name] and m[n, j] != 0:
                loss += float(m[n, j] * own[n].sum() / m[:, j].sum()) / (tags if mean else 1)
        results[f'{name}_LOSS'] = np.asarray(loss)
        average += weights[name] * loss if has_one[name] else 0.0
        shares += weights[name] if has_one[name] else 0.0
    for name, weight in weights.items():
        results[f'{name}_LOSS_weight'] = np.asarray(weight / shares if has_one[name] and shares else 0.0)
    return {**results, 'loss_cls': np.asarray(scale * average / shares if shares else 0.0)}
