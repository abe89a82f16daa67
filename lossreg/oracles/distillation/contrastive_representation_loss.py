"""Contrastive representation distillation."""

from collections.abc import Mapping

import numpy as np

from lossreg.oracles.reference import Array, Inputs, Options


@np.errstate(all='ignore')
def contrastive_representation_loss(call: str, inputs: Inputs, options: Options) -> Mapping[str, Array]:
    """loss = loss_weight · (mean over n of ℓ(s_n; t's embeddings) + the same with s and t exchanged).

    ℓ = -log(P_0 / (P_0 + m / n_data + eps)) - Σ_k≥1 log((m / n_data) / (P_k + m / n_data + eps)),
    P_k = exp(f · c_k / T) / Z. If Z is not given, it is n_data · mean exp(f · c / T), a constant for the gradient.
    """
    results = {}
    total = 0.0
    for own, other in (('s', 't'), ('t', 's')):
        feats, contrast = inputs[f'{own}_feats'], inputs[f'{other}_contrast']
        samples, count = contrast.shape[:2]
        scores = np.zeros((samples, count))
        for n, k in np.ndindex(samples, count):
            scores[n, k] = feats[n] @ contrast[n, k] / options['temperature']
        log_z = np.log(options['sample_n']) + _log_mean(scores)
        if f'z_{own}' in inputs:
            log_z = np.log(inputs[f'z_{own}'])
        results[f'held_log_z_{own}'] = np.asarray(log_z)
        log_p = scores - inputs.get(f'held_log_z_{own}', log_z)
        noise = (count - 1) / options['sample_n']
        # log(P + bound) = log bound + log(1 + P / bound)
        log_bound = np.log(noise + options['eps'])
        for n in range(samples):
            total += float(np.logaddexp(0.0, log_bound - log_p[n, 0]))
            for k in range(1, count):
                total += float(log_bound - np.log(noise) + np.logaddexp(0.0, log_p[n, k] - log_bound))
    return {'loss': np.asarray(options['loss_weight'] * total / max(len(inputs['s_feats']), 1)), **results}


def _log_mean(scores: Array) -> float:
    largest = scores.max(initial=-np.inf)
    return float(largest + np.log(np.exp(scores - largest).mean())) if np.isfinite(largest) else float(largest)
