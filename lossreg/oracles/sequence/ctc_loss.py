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
    """-log of the sum over alignments, by the forward recursion, plus Σ_t log Σ_c p(t, c).

    The second sum is 0 for probabilities; with it, the derivative is that of the normalised sequence, which torch
    gives. A NaN that no alignment takes does not count, as in torch.
    """
    states = _states(labels, blank)
    alpha = np.full(len(states), -np.inf)  # log of the probability of all that leads to a state
    alpha[0] = 0.0
    normaliser = 0.0
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
        normaliser += 0.0 if np.isnan(frame).any() else float(np.logaddexp.reduce(frame))
    return normaliser - float(np.logaddexp.reduce(alpha[-2:]))


def ctc_loss(call: str, inputs: Inputs, options: Options) -> Array:
    """Each sample by its own frames and labels; 'mean' divides by the number of labels, then by the batch."""
    log_p, targets = inputs['log_probs'], inputs['targets']
    frames, lengths = np.atleast_1d(inputs['input_lengths']), np.atleast_1d(inputs['target_lengths'])
    if call == 'sample':
        log_p, targets = log_p[:, None], targets[None]
    losses = []
    for n in range(len(frames)):
        labels = [int(label) for label in targets[n, : lengths[n]]]
        loss = _negative_log_likelihood(log_p[: frames[n], n], labels, options['blank'])
        if np.isinf(loss) and options['zero_infinity']:
            loss = 0.0
        losses.append(loss / max(lengths[n], 1) if options['reduction'] == 'mean' else loss)
    if options['reduction'] == 'none':
        return np.array(losses[0] if call == 'sample' else losses, np.float64)
    total = np.sum(losses)
    return np.asarray(total / max(len(losses), 1) if options['reduction'] == 'mean' else total, np.float64)
