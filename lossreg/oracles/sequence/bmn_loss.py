"""The losses of a boundary-matching network."""

from collections.abc import Mapping

import numpy as np

from lossreg.oracles.reference import Array, Inputs, Options


@np.errstate(all='ignore')
def bmn_loss(call: str, inputs: Inputs, options: Options) -> Mapping[str, Array]:
    """loss = weight_tem · tem + weight_pem_reg · reg + weight_pem_cls · cls; g is the overlap in the mask, 0 outside.

    tem: balanced cross-entropies of starts and ends, positive above 0.5. cls: the balanced cross-entropy of the second
    proposal score, positive above 0.9, inside the mask. reg = Σ w² (p - g)² / 2 Σ w of the first proposal score, with w
    = [h] + [m u > 1 - n_h / n_m] + [l v > 1 - n_h / n_l]; h, m and l are 1 where g > 0.7, 0.3 < g ≤ 0.7 and 0 < g ≤
    0.3, and n are their counts.
    """
    mask, scores = inputs['bm_mask'], inputs['pred_bm']
    g = np.zeros(inputs['gt_iou_map'].shape)
    for i in np.ndindex(g.shape):
        if mask[i[1:]] != 0:
            g[i] = inputs['gt_iou_map'][i] * mask[i[1:]]
    tem = 0.0
    for end in ('start', 'end'):
        labels = inputs[f'gt_{end}']
        positive = np.where(np.isnan(labels), np.nan, labels > 0.5)
        tem += _balanced(inputs[f'pred_{end}'], positive, np.ones(labels.shape), labels.size)
    positive = np.where(np.isnan(g), np.nan, g > 0.9)
    inside = np.broadcast_to(mask, g.shape)
    cls = _balanced(scores[:, 1], positive, inside, max(positive.sum(), 1) + ((1 - positive) * inside).sum())
    reg = np.nan if np.isnan(g).any() else _regression(scores[:, 0], g, inputs['noise_middle'], inputs['noise_low'])
    loss = options['weight_tem'] * tem + options['weight_pem_reg'] * reg + options['weight_pem_cls'] * cls
    named = {'loss': loss, 'tem_loss': tem, 'pem_reg_loss': reg, 'pem_cls_loss': cls}
    return {name: np.asarray(value) for name, value in named.items()}


def _balanced(p: Array, positive: Array, inside: Array, entries: float) -> float:
    """-1/n (r/2 Σ_pos log(p + ε) + r / 2(r - 1) Σ_neg log(1 - p + ε)), r = n / max(n_pos, 1) in [1.05, 21]."""
    if entries == 0:
        return 0.0
    ratio = np.clip(entries / np.maximum(positive.sum(), 1), 1.05, 21)
    summed = 0.0
    for i in np.ndindex(p.shape):
        if inside[i] == 0:
            continue
        if np.isnan(positive[i]):
            return np.nan
        if positive[i]:
            summed += float(ratio / 2 * np.log(p[i] + 1e-5))
        else:
            summed += float(ratio / (2 * (ratio - 1)) * np.log(1 - p[i] + 1e-5))
    return float(-summed / entries)


def _regression(p: Array, g: Array, u: Array, v: Array) -> float:
    high, middle, low = g > 0.7, (g > 0.3) & (g <= 0.7), (g > 0) & (g <= 0.3)
    n = np.float64(high.sum())
    error, count = 0.0, 0.0
    for i in np.ndindex(p.shape):
        w = float(high[i])
        w += float(middle[i] * u[i] > 1 - n / middle.sum())
        w += float(low[i] * v[i] > 1 - n / low.sum())
        if w != 0:
            error += w * w * float((p[i] - g[i]) ** 2)
            count += w
    return error / (2 * count) if count else 0.0
