"""Multi-class margin loss, as in torch.nn."""

from typing import ClassVar, Optional, Sequence, Union

import torch
from torch import Tensor, nn

from lossreg.arith import check_class_map, check_dim, check_labels, check_size, indices, keep, poison, upcast
from lossreg.ops.reductions import average_over, total
from lossreg.options import allow_missing, as_weight, legacy_reduction
from lossreg.registry import LOSSES
from lossreg.spec import Call, Difference, HostClass, Input, LossSpec, Role
from lossreg.spec_parts.torch_nn import weight_count


def multi_margin_loss(
    input: Tensor, target: Tensor, p: int = 1, margin: float = 1.0, weight: Optional[Tensor] = None
) -> Tensor:
    r"""Multi-class margin loss of each sample.

    .. math::
        \ell_n = \frac{w_{y_n}}{C} \sum_{k \ne y_n} \max(0,\; m - x_{n y_n} + x_{nk})^p

    Args:
        input: scores x, (N, C) or (C).
        target: the label y of each sample, integers in [0, C), (N) or a scalar.
        p: 1 or 2.
        margin: m.
        weight: w, (C). Where it is 0 at the label, NaN in ``input`` is ignored.

    Returns:
        The losses, of the shape of ``target``.

    Raises:
        ValueError: shapes do not match.
        IndexError: a label out of range (eager on the CPU; elsewhere that sample's loss is NaN).
    """
    scores, label = input, target
    if input.dim() == 1:
        check_dim(target, 0, 'target')
        scores, label = input.unsqueeze(0), target.unsqueeze(0)
    check_dim(scores, 2, 'input')
    check_class_map(label, scores, 'target', 'input')
    classes = scores.size(1)
    label = indices(label, 'target')
    legal = check_labels(label, classes, None, 'target')
    index = torch.where(legal, label, 0)
    x = upcast(scores)
    if weight is not None:
        check_size(scores, 1, weight.numel(), 'input', 'class weights')
        weight = weight.to(x)[index]
        x = keep(x, ((weight != 0) | ~legal).unsqueeze(1))
    # poison the scores too: where a hinge is 0 the NaN would not reach the gradient
    x = poison(x, legal.unsqueeze(1))
    # m - x_y + x_k
    hinge = margin - x.gather(1, index.unsqueeze(1)) + x
    # NaN is not <= 0
    hinge = keep(hinge, ~((hinge <= 0) | (torch.arange(classes, device=label.device) == index.unsqueeze(1))))
    if p == 2:
        hinge = hinge * hinge
    loss = hinge.sum(1) / classes
    if weight is not None:
        loss = loss * weight
    loss = poison(loss, legal)
    return loss.squeeze(0) if input.dim() == 1 else loss


@LOSSES.register_module()
class MultiMarginLoss(nn.Module):
    """Multi-class hinge loss: the label's score should exceed every other by a margin.

    Drop-in replacement for ``torch.nn.MultiMarginLoss`` (same call and numbers); see :func:`multi_margin_loss` for the
    formula.

    Args:
        p: exponent, 1 or 2.
        margin: by how much the label's score must exceed every other.
        weight: a weight for each class, applied by label.
        size_average: deprecated, see ``reduction``.
        reduce: deprecated, see ``reduction``.
        reduction: ``none``, ``mean`` or ``sum``. ``reduce=False`` means ``none``, ``size_average=False`` means ``sum``.

    Shapes:
        Scores (N, C) or (C), labels (N) or a scalar. Returns a scalar, or the shape of the labels with reduction
        ``none``; the mean is over samples, not weights. An empty batch or all weights 0 give 0 (torch: NaN if empty).

    Raises:
        ValueError: ``p`` is neither 1 nor 2, unknown ``reduction``, shapes do not match.
        IndexError: a label out of range, in eager mode on the CPU; NaN elsewhere.

    Reference:
        https://pytorch.org/docs/stable/generated/torch.nn.MultiMarginLoss.html
    """

    spec: ClassVar[LossSpec]
    weight: Optional[Tensor]

    def __init__(
        self,
        p: int = 1,
        margin: float = 1.0,
        weight: Optional[Union[Tensor, Sequence[float]]] = None,
        size_average: Optional[bool] = None,
        reduce: Optional[bool] = None,
        reduction: str = 'mean',
    ) -> None:
        super().__init__()
        if p != 1 and p != 2:
            raise ValueError(f'p must be 1 or 2, got {p}')
        self.p = int(p)
        self.margin = float(margin)
        self.register_buffer('weight', as_weight(weight))
        allow_missing(self, 'weight')
        self.size_average = size_average
        self.reduce = reduce
        self.reduction = legacy_reduction(size_average, reduce, reduction)

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        """Computes the loss of scores and labels."""
        loss = multi_margin_loss(input, target, self.p, self.margin, self.weight)
        if self.reduction == 'none':
            return loss
        return total(loss) if self.reduction == 'sum' else average_over(total(loss), loss.numel())


def _call(name: str, scores: str, labels: str, batch: Optional[str] = None) -> Call:
    return Call(
        name,
        (Input('input', Role.LOGITS, scores, differentiable=True), Input('target', Role.LABELS, labels, classes='C')),
        batch=batch,
    )


MultiMarginLoss.spec = LossSpec(
    functions=(multi_margin_loss,),
    calls=(_call('labels', 'N C', 'N'), _call('unbatched', 'C', '', batch='')),
    variants={
        'default': {},
        'squared': {'p': 2, 'margin': 0.3},
        'weight': {'weight': [0.5, 0.0, 2.0, 1.25]},
        'sum': {'reduction': 'sum', 'p': 2},
        'none': {'reduction': 'none'},
        'size_average': {'size_average': False},
        'reduce': {'reduce': False, 'weight': [0.5, 1.0, 2.0, 1.25], 'p': 2},
    },
    sizes=weight_count,
    references=('https://pytorch.org/docs/stable/generated/torch.nn.MultiMarginLoss.html',),
    stands_in_for=(HostClass('torch.MultiMarginLoss'),),
    differences=(
        Difference(
            'torch.MultiMarginLoss',
            'a NaN score gives NaN; torch leaves out its terms',
            'contract 3: NaN in a counted element reaches the result',
            'tests/test_differences.py',
        ),
    ),
    constants=('weight',),
)
