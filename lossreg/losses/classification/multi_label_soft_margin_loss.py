"""Multi-label soft margin loss, as in torch.nn."""

from typing import ClassVar, Optional, Sequence, Union

from torch import Tensor, nn

from lossreg.arith import check_same_shape, check_size, upcast
from lossreg.ops.binary_cross_entropy import binary_cross_entropy_with_logits
from lossreg.ops.reductions import average_over, total
from lossreg.options import allow_missing, as_weight, legacy_reduction
from lossreg.registry import LOSSES
from lossreg.spec import Call, Difference, HostClass, Input, LossSpec, Role
from lossreg.spec_parts.torch_nn import weight_count


def multi_label_soft_margin_loss(input: Tensor, target: Tensor, weight: Optional[Tensor] = None) -> Tensor:
    r"""Binary cross-entropy of each sample, averaged over classes.

    .. math::
        \ell_n = -\frac{1}{C} \sum_k w_k \left(t_{nk} \log \sigma(x_{nk}) + (1 - t_{nk}) \log \sigma(-x_{nk})\right)

    Args:
        input: logits x, (N, C) or (C).
        target: t in [0, 1], of the shape of ``input``.
        weight: w, (C). Where it is 0, NaN is ignored.

    Returns:
        The losses, of the shape of ``input`` without C.

    Raises:
        ValueError: shapes do not match.
    """
    check_same_shape(target, input, 'target', 'input')
    x, t = upcast(input), upcast(target)
    if weight is not None:
        check_size(input, -1, weight.numel(), 'input', 'class weights')
        weight = weight.to(x)
    loss = binary_cross_entropy_with_logits(x, t, weight=weight)
    return average_over(loss.sum(-1), input.size(-1))


@LOSSES.register_module()
class MultiLabelSoftMarginLoss(nn.Module):
    """Multi-label classification: binary cross-entropy of logits, averaged over the classes.

    Drop-in replacement for ``torch.nn.MultiLabelSoftMarginLoss`` (same call and numbers); see
    :func:`multi_label_soft_margin_loss`.

    Args:
        weight: a weight for each class.
        size_average: deprecated, see ``reduction``.
        reduce: deprecated, see ``reduction``.
        reduction: ``none``, ``mean`` or ``sum``. ``reduce=False`` means ``none``, ``size_average=False`` means ``sum``.

    Shapes:
        Logits (N, C) or (C), targets of the same shape. Returns a scalar, or (N) with reduction ``none``. An empty
        batch gives 0 (torch: NaN).

    Raises:
        ValueError: unknown ``reduction``, shapes do not match.

    Reference:
        https://pytorch.org/docs/stable/generated/torch.nn.MultiLabelSoftMarginLoss.html
    """

    spec: ClassVar[LossSpec]
    weight: Optional[Tensor]

    def __init__(
        self,
        weight: Optional[Union[Tensor, Sequence[float]]] = None,
        size_average: Optional[bool] = None,
        reduce: Optional[bool] = None,
        reduction: str = 'mean',
    ) -> None:
        super().__init__()
        self.register_buffer('weight', as_weight(weight))
        allow_missing(self, 'weight')
        self.size_average = size_average
        self.reduce = reduce
        self.reduction = legacy_reduction(size_average, reduce, reduction)

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        """Computes the loss of logits and targets."""
        loss = multi_label_soft_margin_loss(input, target, self.weight)
        if self.reduction == 'none':
            return loss
        return total(loss) if self.reduction == 'sum' else average_over(total(loss), loss.numel())


def _call(name: str, shape: str, batch: Optional[str] = None) -> Call:
    return Call(
        name,
        (Input('input', Role.LOGITS, shape, differentiable=True), Input('target', Role.TARGETS, shape)),
        batch=batch,
    )


MultiLabelSoftMarginLoss.spec = LossSpec(
    functions=(multi_label_soft_margin_loss,),
    calls=(_call('targets', 'N C'), _call('unbatched', 'C', batch='')),
    variants={
        'default': {},
        'weight': {'weight': [0.5, 0.0, 2.0, 1.25]},
        'sum': {'reduction': 'sum'},
        'none': {'reduction': 'none'},
        'size_average': {'size_average': False, 'weight': [0.5, 1.0, 2.0, 1.25]},
        'reduce': {'reduce': False},
    },
    sizes=weight_count,
    references=('https://pytorch.org/docs/stable/generated/torch.nn.MultiLabelSoftMarginLoss.html',),
    stands_in_for=(HostClass('torch.MultiLabelSoftMarginLoss'),),
    differences=(
        Difference(
            'torch.MultiLabelSoftMarginLoss',
            'target must have the shape of input, and weight one number for each class; torch broadcasts',
            'contract 5: nothing is broadcast silently',
            'tests/test_differences.py',
        ),
    ),
    constants=('weight',),
)
