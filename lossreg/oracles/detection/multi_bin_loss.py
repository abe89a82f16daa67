"""Multi-bin loss of angles."""

import numpy as np

from lossreg.oracles.reference import Array, Inputs, Options, log_sigmoid

BINS = 4


@np.errstate(all='ignore')
def multi_bin_loss(call: str, inputs: Inputs, options: Options) -> Array:
    """loss = mean of -log p of each bin's class + mean of |v / |v| - (sin a, cos a)|_1 over the bins of class 1.

    The softmax of two logits is a sigmoid: p = σ(x_y - x_other).
    """
    entropies, distances = [], []
    for pred, target in zip(inputs['pred'], inputs['target'], strict=True):
        for i in range(BINS):
            label, angle = target[i], target[BINS + i]
            margin = (pred[2 * i + 1] - pred[2 * i]) * (1 if label == 1 else -1)
            entropies.append(-float(log_sigmoid(margin)) if label in (0, 1) else np.nan)
            if label == 1:
                vector = pred[2 * (BINS + i) : 2 * (BINS + i) + 2]
                unit = vector / np.maximum(np.sqrt((vector**2).sum()), 1e-12)
                distances.append(np.abs(unit - [np.sin(angle), np.cos(angle)]).sum())
    entropy = np.mean(entropies) if entropies else 0.0
    distance = np.mean(distances) if distances else 0.0
    return np.asarray(options['loss_weight'] * (entropy + distance), np.float64)
