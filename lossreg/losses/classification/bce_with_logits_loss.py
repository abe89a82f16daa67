"""Binary cross-entropy of logits."""

from collections.abc import Sequence
from typing import Any, ClassVar, Optional, Union

from torch import Tensor, nn

from lossreg.ops.binary_cross_entropy import weighted_cross_entropy_of_logits
from lossreg.ops.reductions import reduce_loss
from lossreg.options import allow_missing, as_weight, legacy_reduction
from lossreg.registry import LOSSES
from lossreg.spec import Difference, HostClass, LossSpec, Role
from lossreg.spec_parts.torch_nn import weight_sizes, weighted_calls


def bce_with_logits_loss(
    input: Tensor, target: Tensor, weight: Optional[Tensor] = None, pos_weight: Optional[Tensor] = None
) -> Tensor:
    r"""Binary cross-entropy of each logit, weighted.

    .. math::
        \ell = -w \left(c\,t \log \sigma(x) + (1 - t) \log(1 - \sigma(x))\right)

    with :math:`0 \log 0 = 0`.

    Args:
        input: logits x, of any shape.
        target: t in [0, 1], of the same shape.
        weight: w, of a shape that broadcasts to it. Where it is 0, NaN is ignored.
        pos_weight: c, of a shape that broadcasts to it.

    Returns:
        The losses, of the shape of ``input``.

    Raises:
        ValueError: shapes do not match.
    """
    return weighted_cross_entropy_of_logits(input, target, weight, pos_weight)


@LOSSES.register_module()
class BCEWithLogitsLoss(nn.Module):
    """Multi-label classification: binary cross-entropy of logits.

    Drop-in replacement for ``torch.nn.BCEWithLogitsLoss`` (same call and numbers); see :func:`bce_with_logits_loss`.

    Args:
        weight: weights, a tensor or list that broadcasts to the input, such as (C); kept as a buffer.
        size_average: deprecated; False means ``reduction='sum'``.
        reduce: deprecated; False means ``reduction='none'``.
        reduction: ``none``, ``mean`` (over all elements, regardless of weight) or ``sum``.
        pos_weight: weights of the positives, given like ``weight``.

    Shapes:
        Inputs and targets of the same shape. Returns a scalar, or that shape with reduction ``none``. An empty batch,
        or all weights 0, give 0.

    Raises:
        ValueError: shapes do not match.

    Reference:
        torch.nn.BCEWithLogitsLoss.
    """

    spec: ClassVar[LossSpec]
    weight: Optional[Tensor]
    pos_weight: Optional[Tensor]

    def __init__(
        self,
        weight: Optional[Union[Tensor, Sequence[Any]]] = None,
        size_average: Optional[bool] = None,
        reduce: Optional[bool] = None,
        reduction: str = 'mean',
        pos_weight: Optional[Union[Tensor, Sequence[Any]]] = None,
    ) -> None:
        super().__init__()
        self.register_buffer('weight', as_weight(weight))
        self.size_average = size_average
        self.reduce = reduce
        self.reduction = legacy_reduction(size_average, reduce, reduction)
        self.register_buffer('pos_weight', as_weight(pos_weight))
        allow_missing(self, 'weight', 'pos_weight')

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        """Computes the loss."""
        loss = bce_with_logits_loss(input, target, self.weight, self.pos_weight)
        return reduce_loss(loss, self.reduction, None)


BCEWithLogitsLoss.spec = LossSpec(
    functions=(bce_with_logits_loss,),
    calls=weighted_calls(Role.LOGITS, ('weight', 'pos_weight')),
    variants={
        'default': {},
        'weight': {'weight': [0.5, 1.0, 0.0, 2.0]},
        'pos_weight': {'pos_weight': [3.0, 1.0, 0.25, 2.0]},
        'both': {'weight': [[[0.5]], [[1.0]], [[0.0]]], 'pos_weight': [[[3.0]], [[0.0]], [[2.0]]]},
        'sum': {'reduction': 'sum'},
        'deprecated': {'size_average': False, 'reduce': True},
        'none': {'reduction': 'none', 'pos_weight': [3.0, 1.0, 0.25, 2.0]},
    },
    sizes=lambda loss: weight_sizes(loss, ('weight', 'pos_weight')),
    references=('https://pytorch.org/docs/stable/generated/torch.nn.BCEWithLogitsLoss.html',),
    stands_in_for=(HostClass('torch.BCEWithLogitsLoss'),),
    differences=(
        Difference(
            'torch.BCEWithLogitsLoss',
            'NaN under weight 0 contributes 0; torch returns NaN',
            'contract 3: an element that is switched off contributes nothing to value or gradient',
            'tests/test_differences.py',
        ),
    ),
    constants=('weight', 'pos_weight'),
)
