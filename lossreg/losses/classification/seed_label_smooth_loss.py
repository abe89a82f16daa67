"""Cross-entropy with label smoothing spread over the other classes only."""

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lossreg.arith import check_class_map, check_dim, check_labels, indices, poison, upcast
from lossreg.ops.reductions import average_over, total
from lossreg.registry import LOSSES
from lossreg.spec import Call, Input, LossSpec, Role


def seed_label_smooth_loss(input: Tensor, target: Tensor, smoothing: float = 0.0) -> Tensor:
    r"""Cross-entropy of each sample, with part of the label spread over the other classes.

    .. math::
        \ell_i = -(1 - s) \log p_{i y_i} - \frac{s}{C - 1} \sum_{k \ne y_i} \log p_{ik}

    with p the softmax of x. This is the usual smoothing with :math:`\epsilon = s\,C / (C - 1)`. With one class it is 0.

    Args:
        input: logits x, (N, C).
        target: y, integers in [0, C), (N).
        smoothing: s, from 0 to 1.

    Returns:
        (N).

    Raises:
        ValueError: shapes do not match.
        IndexError: a label out of range (eager on the CPU; elsewhere that sample's loss is NaN).
    """
    check_dim(input, 2, 'input')
    check_class_map(target, input, 'target', 'input')
    target = indices(target, 'target')
    legal = check_labels(target, input.size(1), None, 'target')
    index = torch.where(legal, target, 0).unsqueeze(1)
    log_p = F.log_softmax(upcast(input), dim=1)
    loss = torch.zeros_like(log_p[:, 0])
    # -(1 - s) log p_y - s / (C - 1) sum of the others' log p_k, with 0 log 0 = 0
    if smoothing < 1.0:
        loss = loss - (1.0 - smoothing) * log_p.gather(1, index).squeeze(1)
    if smoothing > 0.0:
        # the class is masked out of the sum, not subtracted from it: it may be by far the largest term
        others = torch.where(torch.arange(input.size(1), device=index.device) == index, 0.0, log_p).sum(1)
        loss = loss - smoothing * average_over(others, input.size(1) - 1)
    return poison(loss, legal)


@LOSSES.register_module()
class SeedLabelSmoothLoss(nn.Module):
    """Classification with label smoothing spread over the other classes only.

    See :func:`seed_label_smooth_loss` for the formula.

    ``Seed`` in a name means that the loss follows one of the tutorials from which these losses were first collected.
    The plain ``LabelSmoothLoss`` is mmpretrain's.

    Args:
        smoothing: the share of the label that goes to the other classes, from 0 to 1.

    Shapes:
        Scores (N, C), labels (N). Returns the mean over samples, a scalar. An empty batch gives 0.

    Raises:
        ValueError: ``smoothing`` outside [0, 1], shapes do not match.
        IndexError: a label out of range, in eager mode on the CPU; NaN elsewhere.

    Reference:
        Szegedy et al., Rethinking the Inception Architecture for Computer Vision, CVPR 2016, whose smoothing includes
        the class itself.
    """

    spec: ClassVar[LossSpec]

    def __init__(self, smoothing: float = 0.0) -> None:
        super().__init__()
        if not 0.0 <= smoothing <= 1.0:
            raise ValueError(f'smoothing must be in [0, 1], got {smoothing}')
        self.smoothing = float(smoothing)

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        """Computes the loss of logits and their labels."""
        loss = seed_label_smooth_loss(input, target, self.smoothing)
        return average_over(total(loss), loss.size(0))


SeedLabelSmoothLoss.spec = LossSpec(
    functions=(seed_label_smooth_loss,),
    calls=(
        Call(
            'labels',
            (
                Input('input', Role.LOGITS, 'N C', differentiable=True),
                Input('target', Role.LABELS, 'N', classes='C'),
            ),
        ),
    ),
    variants={'default': {}, 'smoothed': {'smoothing': 0.1}, 'others': {'smoothing': 1.0}},
    references=('https://arxiv.org/abs/1512.00567',),
)
