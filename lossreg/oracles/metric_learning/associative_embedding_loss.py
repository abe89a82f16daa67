"""Associative embedding: corners of one object pull each other, those of different objects push."""

from collections.abc import Mapping

import numpy as np

from lossreg.oracles.reference import Array, Inputs, Options


@np.errstate(all='ignore')
def associative_embedding_loss(call: str, inputs: Inputs, options: Options) -> Mapping[str, Array]:
    """Pull and push, sums over images.

    Pull is Σ_k ((a_k - c_k)² + (b_k - c_k)²) / n, push is Σ_{j≠k} max(0, 1 - |c_j - c_k|) / (n (n - 1)), where a and b
    are the embeddings of an object's corners, c their mean; every channel has its own objects.
    """
    pull = push = 0.0
    for first, second, matches in zip(inputs['pred'], inputs['target'], inputs['match'], strict=True):
        a, b = [], []
        for (y, x), (v, u) in matches:
            if y != -1:
                a += list(first[:, y, x])
                b += list(second[:, v, u])
        n, c = len(a), [(p + q) / 2 for p, q in zip(a, b, strict=True)]
        for k in range(n):
            pull += ((a[k] - c[k]) ** 2 + (b[k] - c[k]) ** 2) / n
            push += sum(np.maximum(0, 1 - np.abs(c[j] - c[k])) for j in range(n) if j != k) / max(n * (n - 1), 1)
    return {
        'loss_pull': np.asarray(options['pull_weight'] * pull),
        'loss_push': np.asarray(options['push_weight'] * push),
    }
