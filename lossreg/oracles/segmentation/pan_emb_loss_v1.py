"""Embedding loss of text kernels."""

import numpy as np

from lossreg.oracles.reference import Array, Inputs, Options


@np.errstate(all='ignore')
def pan_emb_loss_v1(call: str, inputs: Inputs, options: Options) -> Array:
    """loss_n = the loss of image n."""
    count = len(inputs['emb'])
    return np.array([_loss_of_image({name: array[n] for name, array in inputs.items()}, options) for n in range(count)])


def _loss_of_image(inputs: Inputs, options: Options) -> float:
    """Mean pull + mean push + 0.001 mean log(|g| + 1); the last over the kernels and the background, whose g is 0."""
    emb = inputs['emb']
    pixels = emb.reshape(len(emb), -1).T
    label = np.where(inputs['training_mask'] > 0.5, inputs['instance'], 0).ravel()
    core = np.where(inputs['kernel'].ravel() > 0.5, label, 0)
    found = np.unique(core)
    if len(found) <= 1:
        return 0.0
    means = {a: pixels[core == a].mean(0) if a else np.zeros(len(emb)) for a in found}
    pulls, pushes = [], []
    # the lowest label is the background
    for a in found[1:]:
        distances = [np.linalg.norm(e - means[a]) for e in pixels[label == a]]
        pulls.append(np.mean([_logarithm(d - options['delta_aggregation']) for d in distances]))
        pushes += [
            _logarithm(2 * options['delta_discrimination'] - np.linalg.norm(means[a] - means[b]))
            for b in found[1:]
            if b != a
        ]
    size = np.mean([np.log(np.linalg.norm(g) + 1) for g in means.values()])
    return float(np.mean(pulls) + (np.mean(pushes) if pushes else 0.0) + 0.001 * size)


def _logarithm(x: float) -> float:
    """log(max(0, x)² + 1); NaN gives NaN."""
    return float(np.log(np.maximum(x, 0.0) ** 2 + 1))
