"""Multi-label margin loss, as in torch.nn."""

from typing import ClassVar, Optional

import torch
from torch import Tensor, nn

from lossreg.arith import check_labels, check_same_shape, choose, indices, keep, poison, upcast
from lossreg.ops.reductions import average_over, total
from lossreg.options import legacy_reduction
from lossreg.registry import LOSSES
from lossreg.spec import Call, Difference, HostClass, Input, LossSpec, Role


def multi_label_margin_loss(input: Tensor, target: Tensor, margin: float = 1.0) -> Tensor:
    r"""Multi-label margin loss of each sample.

    .. math::
        \ell_n = \frac{1}{C} \sum_{j \in y_n} \sum_{k \notin y_n} \max(0,\; m - x_{nj} + x_{nk})

    A label that occurs twice in y counts twice. One sort of the C scores replaces the C x C differences: the scores of
    the labels, minus the margin, are sorted together with the others, and running sums give each label's violations.
    The sums are in float64, because large scores cancel.

    Args:
        input: scores x, (N, C) or (C).
        target: the labels y of each sample, integers, of the shape of ``input``; those before the first -1 count.
        margin: m.

    Returns:
        The losses, (N) or a scalar. A sample with no label, or with every class as a label, contributes 0, even if it
        is NaN.

    Raises:
        ValueError: shapes do not match.
        IndexError: a label out of range, even after the first -1 (eager on the CPU; elsewhere that sample's loss is
            NaN).
    """
    check_same_shape(target, input, 'target', 'input')
    classes = input.size(-1)
    target = indices(target, 'target')
    legal = check_labels(target, classes, -1, 'target')
    # the dimension as a positive index: DTensor of torch 2.13 sums wrongly along -1 if that is sharded
    last = target.dim() - 1
    counted = (target < 0).to(torch.int64).cumsum(last) == 0
    legal_sample = legal.all(-1, keepdim=True)
    # how often each class is in the set; an extra class collects labels that do not count
    index = torch.where(counted & legal, target, classes)
    ones = torch.ones_like(index, dtype=torch.float64)
    none = torch.zeros_like(input[..., :1], dtype=torch.float64)
    times = torch.cat([torch.zeros_like(ones), none], -1).scatter_add(-1, index, ones)[..., :classes]
    positive = times > 0
    pairs = positive.any(-1, keepdim=True) & ~positive.all(-1, keepdim=True)
    x = upcast(input)
    # poisoned label by label, although one suffices, so that pt2 rejects shapes that differ
    scores = poison(keep(x, pairs | ~legal_sample), legal & legal_sample).double()
    # x_j - m in the set, x_k elsewhere: the hinge of a pair is the difference of these
    value = scores - choose(positive, margin, 0.0, scores)
    # ties violate nothing, so those of the set are raised slightly, by a product, as exporters drop + 1e-30
    key = value.detach()
    key = key + keep(key.abs().clamp(1e-17, 1e30) * 1e-13, positive)
    order = torch.sort(key, dim=last, descending=True)[1]
    value, times, positive = value.gather(-1, order), times.gather(-1, order), positive.gather(-1, order)
    above = (~positive).double().cumsum(last)
    violated = positive & (above > 0)
    # sum_k x_k - n (x_j - m), over the n classes above
    summed = keep(keep(value, ~positive).cumsum(last), violated) - above * keep(value, violated)
    loss = (times * summed).sum(-1) / classes
    # runtimes may sort NaN to any place
    loss = poison(loss, (scores == scores).all(-1) & legal_sample.squeeze(-1))
    return loss.to(x.dtype)


@LOSSES.register_module()
class MultiLabelMarginLoss(nn.Module):
    """Multi-label hinge loss: the score of every label should exceed all other scores by 1.

    Drop-in replacement for ``torch.nn.MultiLabelMarginLoss`` (same call and numbers); see
    :func:`multi_label_margin_loss` for the formula.

    Args:
        size_average: deprecated, see ``reduction``.
        reduce: deprecated, see ``reduction``.
        reduction: ``none``, ``mean`` or ``sum``. ``reduce=False`` means ``none``, ``size_average=False`` means ``sum``.
        margin: by how much the score of each label must exceed those of all other classes; 1 in torch.nn.

    Shapes:
        Scores (N, C) or (C), labels of the same shape, of which those before the first -1 count. Returns a scalar, or
        (N) with reduction ``none``. An empty batch gives 0 (torch: NaN).

    Raises:
        ValueError: unknown ``reduction``, shapes do not match.
        IndexError: a label out of range, in eager mode on the CPU; NaN elsewhere.

    Reference:
        https://pytorch.org/docs/stable/generated/torch.nn.MultiLabelMarginLoss.html
    """

    spec: ClassVar[LossSpec]

    def __init__(
        self,
        size_average: Optional[bool] = None,
        reduce: Optional[bool] = None,
        reduction: str = 'mean',
        margin: float = 1.0,
    ) -> None:
        super().__init__()
        self.size_average = size_average
        self.reduce = reduce
        self.reduction = legacy_reduction(size_average, reduce, reduction)
        self.margin = float(margin)

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        """Computes the loss of scores and sets of labels."""
        loss = multi_label_margin_loss(input, target, self.margin)
        if self.reduction == 'none':
            return loss
        return total(loss) if self.reduction == 'sum' else average_over(total(loss), loss.numel())


def _call(name: str, shape: str, batch: Optional[str] = None) -> Call:
    return Call(
        name,
        (
            Input('input', Role.LOGITS, shape, differentiable=True),
            Input('target', Role.LABEL_SETS, shape, classes='C'),
        ),
        batch=batch,
    )


MultiLabelMarginLoss.spec = LossSpec(
    functions=(multi_label_margin_loss,),
    calls=(_call('label_sets', 'N C'), _call('unbatched', 'C', batch='')),
    variants={
        'default': {},
        'margin': {'margin': 0.3},
        'sum': {'reduction': 'sum', 'margin': 0.0},
        'none': {'reduction': 'none'},
        'size_average': {'size_average': False},
        'reduce': {'reduce': False},
    },
    references=('https://pytorch.org/docs/stable/generated/torch.nn.MultiLabelMarginLoss.html',),
    stands_in_for=(HostClass('torch.MultiLabelMarginLoss'),),
    differences=(
        Difference(
            'torch.MultiLabelMarginLoss',
            'a NaN score gives NaN; torch leaves out its pairs',
            'contract 3: NaN in a counted element reaches the result',
            'tests/test_differences.py',
        ),
    ),
)
