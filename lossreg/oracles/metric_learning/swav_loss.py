"""SwAV: each view predicts the cluster assignment of another one."""

from collections.abc import Mapping

import numpy as np

from lossreg.oracles.reference import Array, Inputs, Options, log_softmax


@np.errstate(all='ignore')
def swav_loss(call: str, inputs: Inputs, options: Options) -> Mapping[str, Array]:
    """loss = 1/|A| Σ_{i∈A} 1/(V-1) Σ_{v≠i} mean over b of -q_ib · log softmax(x_vb·C / τ); V crops of B images each.

    C are the prototypes scaled to length 1; q are the assignments of crop i, without gradient. The gradient of the
    prototypes is that of C. ``queued``: earlier features are assigned too, from the first full queue on; the crop's
    features enter the queue at the front.
    """
    x, assigned, crops = inputs['x'], options['crops_for_assign'], sum(options['num_crops'])
    images = len(x) // crops
    given = inputs['prototypes'] if 'prototypes' in inputs else inputs['prototypes.weight']
    lengths = np.maximum(np.sqrt((given * given).sum(1, keepdims=True)), 1e-12)
    normalised, origin = inputs.get('held_normalised', given / lengths), inputs.get('held_origin', given)
    prototypes = normalised + (given - origin)
    views = x[: crops * images].reshape(crops, images, x.shape[1])
    codes = inputs.get('held_codes')
    if codes is None:
        codes = _codes(views, prototypes, inputs.get('queue'), options)
    loss = 0.0
    for view, crop in zip(codes, assigned, strict=True):
        for v in range(crops):
            for b in range(images):
                if v != crop:
                    log_p = log_softmax(views[v, b] @ prototypes.T / options['temperature'])
                    loss -= float((view[b] * log_p).sum()) / images
    results = {
        'loss': np.asarray(loss / len(assigned) / (crops - 1)),
        'held_codes': codes,
        'held_normalised': normalised,
        'held_origin': origin,
    }
    if call == 'queued':
        full = [np.concatenate([views[crop], old]) for crop, old in zip(assigned, inputs['queue'], strict=True)]
        results['next_queue'] = np.stack(full)[:, : inputs['queue'].shape[1]]
    return results


def _codes(views: Array, prototypes: Array, queue: Array | None, options: Options) -> Array:
    """The assignments of the crops' images, (|A|, B, K)."""
    codes, is_used = [], False
    for at, crop in enumerate(options['crops_for_assign']):
        features = views[crop]
        if queue is not None:
            is_used = is_used or bool((queue[at, -1] != 0).any())
            features = np.concatenate([queue[at], features]) if is_used else features
        assigned = _sinkhorn(features @ prototypes.T, options)
        codes.append(assigned[len(assigned) - len(views[crop]) :])
    return np.stack(codes)


def _sinkhorn(scores: Array, options: Options) -> Array:
    """e^(s/ε) / its sum; then in turn each column / (K · its sum) and each row / (B · its sum); times B."""
    samples, prototypes = scores.shape
    q = np.exp(scores / options['epsilon'])
    q /= q.sum()
    for _ in range(options['sinkhorn_iterations']):
        if (q.sum(0) == 0).any():
            q += 1e-12
        q /= prototypes * q.sum(0)
        q /= samples * q.sum(1, keepdims=True)
    assignments: Array = q * samples
    return assignments
