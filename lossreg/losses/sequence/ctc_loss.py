"""Connectionist temporal classification."""

from typing import ClassVar, Dict, List, Mapping, Union

import torch
from torch import Tensor, nn

from lossreg.arith import (
    as_lengths,
    check_at_least,
    check_dim,
    check_labels,
    check_leading_shape,
    check_lengths,
    check_same_shape,
    check_size,
    indices,
    keep,
    poison,
    upcast,
)
from lossreg.ops.lattice import ctc_negative_log_likelihood, padded_targets
from lossreg.ops.reductions import average_over, reduce_loss, total
from lossreg.options import check_reduction
from lossreg.registry import LOSSES
from lossreg.spec import Call, Difference, HostClass, Input, LossSpec, Role


def ctc_loss(
    log_probs: Tensor,
    targets: Tensor,
    input_lengths: Union[Tensor, List[int]],
    target_lengths: Union[Tensor, List[int]],
    blank: int = 0,
    zero_infinity: bool = False,
) -> Tensor:
    r"""Negative log-likelihood of each label sequence, over all its alignments.

    .. math::
        \ell_n = -\log \sum_{\pi \in \mathcal{B}^{-1}(y_n)} \prod_{t=1}^{T_n} p(t, \pi_t)

    where B removes repetitions, then blanks. The gradient is torch's: it treats each frame as the result of a
    log-softmax, so that a frame's gradient sums to 0.

    Eager mode runs torch's kernel. TorchScript and exported graphs run the forward-backward recursion in float64 and
    have the gradient in closed form. Second derivatives raise RuntimeError.

    Args:
        log_probs: log p, the log-softmax of scores, (T, N, C).
        targets: labels y, (N, S), or all concatenated, (sum of ``target_lengths``). Labels beyond a sample's length do
            not count.
        input_lengths: the number of frames that count, (N), 0 to T; a tensor, list or tuple.
        target_lengths: the number of labels, (N), 0 to S, likewise.
        blank: the class that stands for no label.
        zero_infinity: whether a sample without any alignment contributes 0 instead of infinity.

    Returns:
        (N). Without any alignment it is infinite, and its gradient NaN, as in torch.

    Raises:
        ValueError: shapes do not match.
        IndexError: a label or length out of range (eager on the CPU; elsewhere that sample's loss is NaN).

    Example:
        >>> log_probs = torch.full((2, 1, 2), 0.5).log()
        >>> ctc_loss(log_probs, torch.tensor([[1]]), [2], [1])  # -log 3/4: all paths except two blanks
        tensor([0.2877])
    """
    return _losses_of_samples(
        log_probs,
        targets,
        as_lengths(input_lengths, log_probs, 'input_lengths'),
        as_lengths(target_lengths, log_probs, 'target_lengths'),
        blank,
        zero_infinity,
    )


def _losses_of_samples(
    log_probs: Tensor,
    targets: Tensor,
    input_lengths: Tensor,
    target_lengths: Tensor,
    blank: int,
    zero_infinity: bool,
) -> Tensor:
    """:func:`ctc_loss` of lengths from :func:`lossreg.arith.as_lengths`."""
    check_dim(log_probs, 3, 'log_probs')
    check_at_least(log_probs, 0, 1, 'log_probs', 'an alignment')
    check_dim(input_lengths, 1, 'input_lengths')
    check_dim(target_lengths, 1, 'target_lengths')
    check_size(log_probs, 1, input_lengths.size(0), 'log_probs', 'input_lengths')
    check_same_shape(target_lengths, input_lengths, 'target_lengths', 'input_lengths')
    targets = indices(targets, 'targets')
    if targets.dim() == 1:
        targets = padded_targets(targets, target_lengths)
    check_dim(targets, 2, 'targets')
    check_leading_shape(targets, input_lengths, 1, 'targets', 'input_lengths')
    legal = check_lengths(input_lengths, log_probs.size(0), 'input_lengths', 'frames')
    legal = legal & check_lengths(target_lengths, targets.size(1), 'target_lengths', 'labels in a row of targets')
    # a sample with an illegal label keeps its frames, so that NaN reaches their gradient
    input_lengths = torch.where(legal, input_lengths, log_probs.size(0))
    target_lengths = torch.where(legal, target_lengths, 0)
    padding = torch.arange(targets.size(1), device=targets.device) >= target_lengths.unsqueeze(1)
    labels = torch.where(padding, blank, targets)
    known = check_labels(labels, log_probs.size(2), None, 'targets')
    counted = torch.arange(log_probs.size(0), device=log_probs.device).unsqueeze(1) < input_lengths
    x = keep(upcast(log_probs), counted.unsqueeze(2))
    labels = torch.where(known, labels, blank)
    nll = ctc_negative_log_likelihood(x, labels, input_lengths, target_lengths, blank, zero_infinity)
    return poison(nll, legal & known.all(1))


@LOSSES.register_module()
class CTCLoss(nn.Module):
    """Unaligned sequences, such as speech or text: negative log-likelihood over all alignments.

    Drop-in replacement for ``torch.nn.CTCLoss`` (same call and numbers); see :func:`ctc_loss` for the formula.

    Args:
        blank: the class that stands for no label.
        reduction: ``none``, ``mean`` (each sample over its number of labels, then over the batch) or ``sum``.
        zero_infinity: whether a sample without any alignment (too few frames for its labels) contributes 0 to value and
            gradient. Otherwise it is infinite.

    Shapes:
        Log-probabilities (T, N, C), targets (N, S) or all concatenated, lengths (N), which may be lists or tuples
        of ints; or one sample: (T, C), (S) and scalars. Returns a scalar, or (N) with reduction ``none``.
        An empty batch gives 0.

    Raises:
        ValueError: shapes do not match.
        IndexError: a label or length out of range, in eager mode on the CPU; NaN elsewhere. For such labels, torch
            reads memory beyond the tensor.

    Reference:
        Graves et al., Connectionist Temporal Classification, ICML 2006.
    """

    spec: ClassVar[LossSpec]

    def __init__(self, blank: int = 0, reduction: str = 'mean', zero_infinity: bool = False) -> None:
        super().__init__()
        check_reduction(reduction)
        self.blank = blank
        self.reduction = reduction
        self.zero_infinity = zero_infinity

    def forward(
        self,
        log_probs: Tensor,
        targets: Tensor,
        input_lengths: Union[Tensor, List[int]],
        target_lengths: Union[Tensor, List[int]],
    ) -> Tensor:
        """Computes the loss. Lengths are tensors, or lists or tuples of ints."""
        frames, labels = (
            as_lengths(input_lengths, log_probs, 'input_lengths'),
            as_lengths(target_lengths, log_probs, 'target_lengths'),
        )
        if log_probs.dim() == 2:
            check_dim(targets, 1, 'targets')
            loss = _losses_of_samples(
                log_probs.unsqueeze(1),
                targets.unsqueeze(0),
                frames.view(-1),
                labels.view(-1),
                self.blank,
                self.zero_infinity,
            )
            if self.reduction == 'none':
                return loss.squeeze(0)
        else:
            loss = _losses_of_samples(log_probs, targets, frames, labels, self.blank, self.zero_infinity)
        if self.reduction == 'mean':
            # mean over samples of the loss per label
            return average_over(total(loss / labels.view(-1).clamp(min=1)), loss.size(0))
        return reduce_loss(loss, self.reduction, None)


def _consistent(loss: CTCLoss, drawn: Mapping[str, Tensor]) -> Dict[str, Tensor]:
    """Labels other than blank and, unless infinite losses are wanted, no more than the frames can hold."""
    frames, lengths, targets = drawn['input_lengths'], drawn['target_lengths'], drawn['targets']
    classes = drawn['log_probs'].shape[-1]
    labels = torch.where(targets == loss.blank, (targets + 1) % classes, targets)
    if loss.zero_infinity:
        return {'targets': labels}
    frames = frames.clamp(min=3).clamp(max=drawn['log_probs'].shape[0])
    return {
        'targets': labels,
        'input_lengths': frames,
        'target_lengths': torch.minimum(lengths, (frames - 1).clamp(min=0) // 2),
    }


CTCLoss.spec = LossSpec(
    functions=(ctc_loss,),
    calls=(
        Call(
            'batch',
            (
                Input('log_probs', Role.LOG_PROBABILITIES, 'T N C', differentiable=True),
                Input('targets', Role.LABELS, 'N S', classes='C'),
                Input('input_lengths', Role.LENGTHS, 'N', classes='T'),
                Input('target_lengths', Role.LENGTHS, 'N', classes='S'),
            ),
            batch='N',
            consistent=_consistent,
        ),
        Call(
            'sample',
            (
                Input('log_probs', Role.LOG_PROBABILITIES, 'T C', differentiable=True),
                Input('targets', Role.LABELS, 'S', classes='C'),
                Input('input_lengths', Role.LENGTHS, '', classes='T'),
                Input('target_lengths', Role.LENGTHS, '', classes='S'),
            ),
            batch='',
            consistent=_consistent,
        ),
    ),
    variants={
        'default': {},
        'zero_infinity': {'zero_infinity': True},
        'last_is_blank': {'blank': 2, 'reduction': 'sum'},
        'none': {'reduction': 'none', 'zero_infinity': True},
    },
    at_least=lambda loss: {'C': loss.blank + 1},
    references=(
        'https://www.cs.toronto.edu/~graves/icml_2006.pdf',
        'https://docs.pytorch.org/docs/stable/generated/torch.nn.CTCLoss.html',
    ),
    stands_in_for=(HostClass('torch.CTCLoss'),),
    differences=(
        Difference(
            'torch.CTCLoss',
            'a label out of range is an error (NaN in artefacts); torch reads beyond its tensor',
            'contract 4',
            'tests/test_differences.py',
        ),
    ),
)
