"""Connectionist temporal classification."""

import numpy as np

from lossreg.oracles.reference import Array, Inputs, Options


def _states(labels: list[int], blank: int) -> list[int]:
    """b y1 b y2 b ... yS b."""
    states = [blank]
    for label in labels:
        states += [label, blank]
    return states


def _negative_log_likelihood(log_p: Array, labels: list[int], blank: int) -> float:
    """-log of the sum over alignments, by the forward recursion. A NaN on no alignment does not count."""
    states = _states(labels, blank)
    alpha = np.full(len(states), -np.inf)  # log-probability of all paths to a state
    alpha[0] = 0.0
    for frame in log_p:
        previous = alpha.copy()
        for at, state in enumerate(states):
            ways = [previous[at]]
            if at >= 1:
                ways.append(previous[at - 1])
            if at >= 2 and state != states[at - 2]:
                ways.append(previous[at - 2])
            reached = np.logaddexp.reduce(ways)
            alpha[at] = -np.inf if reached == -np.inf else reached + frame[state]
    return -float(np.logaddexp.reduce(alpha[-2:]))


def _normaliser(log_p: Array) -> float:
    """Σ_t log Σ_c p(t, c): 0 for probabilities, up to rounding."""
    return 0.0 if np.isnan(log_p).any() else float(sum(np.logaddexp.reduce(frame) for frame in log_p))


def ctc_loss(call: str, inputs: Inputs, options: Options) -> dict[str, Array]:
    """loss_n from the frames and labels of sample n; 'mean' divides by the number of labels, then by N.

    As in torch, the derivative is that of the normalised sequence: the change of the normaliser, 0 at the point itself,
    is added.
    """
    log_p, targets = inputs['log_probs'], inputs['targets']
    frames, lengths = np.atleast_1d(inputs['input_lengths']), np.atleast_1d(inputs['target_lengths'])
    if call == 'sample':
        log_p, targets = log_p[:, None], targets[None]
    normalisers = np.array([_normaliser(log_p[: frames[n], n]) for n in range(len(frames))])
    change = normalisers - inputs.get('held_normalisers', normalisers)
    losses = []
    for n in range(len(frames)):
        labels = [int(label) for label in targets[n, : lengths[n]]]
        loss = _negative_log_likelihood(log_p[: frames[n], n], labels, options['blank']) + change[n]
        if np.isinf(loss) and options['zero_infinity']:
            loss = 0.0
        losses.append(loss / max(lengths[n], 1) if options['reduction'] == 'mean' else loss)
    if options['reduction'] == 'none':
        reduced = np.array(losses[0] if call == 'sample' else losses, np.float64)
    else:
        reduced = np.sum(losses) / (max(len(losses), 1) if options['reduction'] == 'mean' else 1)
    return {'loss': np.asarray(reduced), 'held_normalisers': normalisers}
