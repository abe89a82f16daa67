"""The alignment lattice of connectionist temporal classification: its likelihood and derivative.

The states of a sample are its labels with blanks before, between and after: ``L = 2 S + 1``. The recursion over frames
is a scan, which is an operator in ONNX, in every trace, and a loop elsewhere. Everything is in float64: the likelihood
of a long sequence is a small number, and the derivative a ratio of two of them.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from lossreg.arith import is_eager, keep
from lossreg.ops.closed_form import with_gradient
from lossreg.ops.tracing import scan

KERNEL_IS_RIGHT = torch.__version__ >= '2.11'
"""Whether torch's kernel is right: torch 2.1's reads uninitialised memory for a sample without frames; 2.11 is good."""


def ctc_negative_log_likelihood(
    log_probs: Tensor, labels: Tensor, input_lengths: Tensor, target_lengths: Tensor, blank: int, zero_infinity: bool
) -> Tensor:
    """The negative log-likelihood of each sample, (N), with the gradient that torch defines.

    Eager mode runs torch's kernel where it is right; everything else runs the recursion.

    Args:
        log_probs: 0 where frames do not count, (T, N, C).
        labels: legal everywhere, (N, S).
        input_lengths: frames that count, (N).
        target_lengths: labels that count, (N).
        blank: the class that stands for no label.
        zero_infinity: whether a sample without any alignment gives 0 instead of infinity.
    """
    if not torch.jit.is_scripting():  # type: ignore[attr-defined]
        if KERNEL_IS_RIGHT and is_eager(log_probs):
            return _native(log_probs, labels, input_lengths, target_lengths, blank, zero_infinity)
    nll, gradient = _closed_form(log_probs.detach().double(), labels, input_lengths, target_lengths, blank)
    impossible = nll == torch.inf
    nll = torch.where(impossible, 1.0, nll).to(log_probs.dtype)
    gradient = torch.where(impossible.unsqueeze(1), 0.0, gradient).to(log_probs.dtype)
    # a factor of infinity makes the value infinite and, times the gradient of 0, the gradient NaN, as in torch
    factor = torch.where(impossible, torch.full_like(nll, 0.0 if zero_infinity else torch.inf), 1.0)
    counted = torch.arange(log_probs.size(0), device=log_probs.device).unsqueeze(1) < input_lengths
    finite = keep(log_probs, counted.unsqueeze(2) & (log_probs > -torch.inf))
    return with_gradient(nll, finite.transpose(0, 1), gradient.transpose(0, 1)) * factor


@torch.jit.unused
def _native(
    log_probs: Tensor, labels: Tensor, input_lengths: Tensor, target_lengths: Tensor, blank: int, zero_infinity: bool
) -> Tensor:
    if labels.size(0) == 0:  # torch's kernel refuses an empty batch
        return log_probs.sum((0, 2))
    nll = F.ctc_loss(log_probs.double(), labels, input_lengths, target_lengths, blank, 'none', zero_infinity)
    return nll.to(log_probs.dtype)


def _closed_form(
    log_probs: Tensor, labels: Tensor, input_lengths: Tensor, target_lengths: Tensor, blank: int
) -> tuple[Tensor, Tensor]:
    """The negative log-likelihood, (N), and its derivative by ``log_probs``, (T, N, C), in float64."""
    states = _states(labels, blank)
    index = states.unsqueeze(0).expand(log_probs.size(0), -1, -1)
    emissions = log_probs.gather(2, index)
    # a state may be reached from the one before the last, unless that is the same label or both are blanks
    skip = states != F.pad(states, [2, 0], value=float(blank))[:, :-2]
    place = torch.arange(states.size(1), device=states.device)
    last = 2 * target_lengths.unsqueeze(1)
    counted = torch.arange(log_probs.size(0), device=log_probs.device).unsqueeze(1) < input_lengths
    final, forward = _recursion(_log_of(place == 0).expand(states.shape), emissions, skip, counted)
    log_likelihood = _log_sum_exp(torch.where((place == last) | (place == last - 1), final, -torch.inf))
    # the same recursion backwards in frames and states; a skip then leads to the state after the next
    _, backward = _recursion(
        _log_of(place == last).flip(1),
        emissions.flip(0, 2),
        F.pad(skip.flip(1), [2, 0])[:, :-2],
        counted.flip(0),
    )
    # both contain the frame's own emission; their product over the likelihood is the share of alignments in that state
    paths = torch.where(emissions == -torch.inf, -torch.inf, forward + backward.flip(0, 2) - emissions)
    posterior = (paths - log_likelihood.unsqueeze(1)).exp()
    # d nll / d log p(t, c) = p(t, c) - sum of posteriors of the states with class c
    expected = torch.zeros_like(log_probs).scatter_add(2, index, posterior)
    # a NaN that an alignment reaches is in the posteriors; a NaN that none reaches does not count
    probability = torch.where(log_probs.isnan(), 0.0, log_probs.exp())
    return -log_likelihood, torch.where(counted.unsqueeze(2), probability - expected, 0.0)


def padded_targets(targets: Tensor, lengths: Tensor) -> Tensor:
    """Rows of labels, (N, M), from concatenated labels, (M)."""
    first = lengths.cumsum(0) - lengths
    place = torch.arange(targets.size(0), device=targets.device)
    index = (first.unsqueeze(1) + place).clamp(min=0, max=targets.size(0) - 1)
    return targets.index_select(0, index.flatten()).view(index.shape)


def _states(labels: Tensor, blank: int) -> Tensor:
    """Labels with blanks before, between and after: (N, 2 S + 1)."""
    pairs = torch.stack([torch.full_like(labels, blank), labels], 2)
    return F.pad(pairs.flatten(1), [0, 1], value=float(blank))


def _log_of(mask: Tensor) -> Tensor:
    """0 where true, else -inf."""
    return torch.where(mask, torch.zeros([], dtype=torch.float64, device=mask.device), -torch.inf)


def _log_sum_exp(x: Tensor) -> Tensor:
    """log sum exp over the last dimension; -inf where all are."""
    largest = x.amax(-1)
    largest = torch.where(largest == -torch.inf, 0.0, largest)
    return (x - largest.unsqueeze(-1)).exp().sum(-1).log() + largest


def _step(state: Tensor, emission: Tensor, skip: Tensor, counted: Tensor) -> Tensor:
    """One frame: stay, advance by one, or by two over a blank. A frame that does not count changes nothing."""
    before = F.pad(state, [2, 0], value=-torch.inf)
    # alpha(t, l) = log p(t, l) + log(e^alpha(t-1, l) + e^alpha(t-1, l-1) + [skip] e^alpha(t-1, l-2))
    reached = _log_sum_exp(torch.stack([state, before[:, 1:-1], torch.where(skip, before[:, :-2], -torch.inf)], -1))
    # a NaN that no alignment reaches does not count
    reached = torch.where(reached == -torch.inf, -torch.inf, reached + emission)
    return torch.where(counted.unsqueeze(1), reached, state)


def _recursion(start: Tensor, emissions: Tensor, skip: Tensor, counted: Tensor) -> tuple[Tensor, Tensor]:
    """The state after the last frame, (N, L), and after each, (T, N, L)."""
    if not torch.jit.is_scripting():  # type: ignore[attr-defined]
        if not is_eager(start):
            return _scan(start, emissions, skip, counted)
    state = start
    states: list[Tensor] = []
    for t in range(emissions.size(0)):
        state = _step(state, emissions[t], skip, counted[t])
        states.append(state)
    return state, torch.stack(states)


@torch.jit.unused
def _scan(start: Tensor, emissions: Tensor, skip: Tensor, counted: Tensor) -> tuple[Tensor, Tensor]:
    def step(state: Tensor, emission: Tensor, counted: Tensor, skip: Tensor) -> list[Tensor]:
        state = _step(state, emission, skip, counted)
        return [state, state.clone()]  # two results must not be the same tensor

    final, states = scan(step, start.contiguous(), [emissions, counted], [skip])
    return final, states
