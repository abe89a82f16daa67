"""Object keypoint similarity (OKS) loss, called as in mmpose."""

import numpy as np

from lossreg.oracles.keypoints import sigmas_of
from lossreg.oracles.reference import Array, Inputs, Options, reduce


@np.errstate(all='ignore')
def oks_loss(call: str, inputs: Inputs, options: Options) -> Array:
    """loss = reduction of 1 - s ('linear'), 1 - s² ('square') or -log s ('log'), with s = Σ_k v_k exp(-d_k²/2).

    d = |x - t| / (2σ max(√a, eps)), without 2σ or a where they are not given. v = w / K, or w / max(Σ w, eps), or 1
    without weights. An instance of weight 0 has log s = 0.
    """
    output, target = inputs['output'], inputs['target']
    weights, areas = inputs.get('target_weight'), inputs.get('areas')
    sigmas = sigmas_of(options['metainfo'])
    samples, keypoints = output.shape[:2]
    losses = np.zeros(samples)
    for n in range(samples):
        exponents, factors = [], []
        for k in range(keypoints):
            w = 1.0 if weights is None else float(weights[n, k])
            if w == 0:
                continue
            d = np.linalg.norm(output[n, k] - target[n, k])
            if areas is not None:
                d /= np.maximum(np.sqrt(areas[n]), options['eps'])
            if sigmas is not None:
                d /= 2 * sigmas[k]
            if weights is not None:
                w /= np.maximum(weights[n].sum(), options['eps']) if options['norm_target_weight'] else keypoints
            exponents.append(-(d**2) / 2)
            factors.append(w)
        losses[n] = _loss(np.array(exponents), np.array(factors), options['mode'])
    return reduce(losses, options)


def _loss(exponents: Array, factors: Array, mode: str) -> float:
    """1 - s, 1 - s² or -log s, with s = Σ factor · exp(exponent); the log is taken relative to the largest term."""
    if mode == 'log':
        if not len(factors):
            return 0.0
        largest = exponents.max()
        if np.isinf(largest):
            return np.inf
        return float(-largest - np.log(np.sum(factors * np.exp(exponents - largest))))
    s = float(np.sum(factors * np.exp(exponents)))
    return 1 - s if mode == 'linear' else 1 - s**2
