"""Binary cross-entropy of probabilities."""

from collections.abc import Sequence
from typing import Any, ClassVar, Optional, Union

from torch import Tensor, nn

from lossreg.ops.binary_cross_entropy import weighted_cross_entropy_of_probabilities
from lossreg.ops.reductions import reduce_loss
from lossreg.options import allow_missing, as_weight, legacy_reduction
from lossreg.registry import LOSSES
from lossreg.spec import Difference, HostClass, LossSpec, Role
from lossreg.spec_parts.torch_nn import weight_sizes, weighted_calls


def bce_loss(input: Tensor, target: Tensor, weight: Optional[Tensor] = None) -> Tensor:
    r"""Binary cross-entropy of each probability, weighted.

    .. math::
        \ell = -w \left(t \log p + (1 - t) \log(1 - p)\right)

    Logarithms are clamped to at least -100, as in torch, with gradient 0 there.

    Args:
        input: probabilities p, of any shape. Values outside [0, 1] give NaN.
        target: t in [0, 1], of the same shape.
        weight: w, of a shape that broadcasts to it. Where it is 0, NaN is ignored.

    Returns:
        The losses, of the shape of ``input``.

    Raises:
        ValueError: shapes do not match.
    """
    return weighted_cross_entropy_of_probabilities(input, target, weight)


@LOSSES.register_module()
class BCELoss(nn.Module):
    """Multi-label classification: binary cross-entropy of probabilities.

    Drop-in replacement for ``torch.nn.BCELoss`` (same call and numbers); see :func:`bce_loss` for the formula.

    The input is the probability of each class on its own: the output of a sigmoid, not of a softmax. For logits use
    ``BCEWithLogitsLoss``, which is exact at any logit.

    Args:
        weight: weights, a tensor or list that broadcasts to the input, such as (C); kept as a buffer.
        size_average: deprecated; False means ``reduction='sum'``.
        reduce: deprecated; False means ``reduction='none'``.
        reduction: ``none``, ``mean`` (over all elements, regardless of weight) or ``sum``.

    Shapes:
        Inputs and targets of the same shape. Returns a scalar, or that shape with reduction ``none``. An empty batch,
        or all weights 0, give 0.

    Raises:
        ValueError: shapes do not match.

    Reference:
        torch.nn.BCELoss.
    """

    spec: ClassVar[LossSpec]
    weight: Optional[Tensor]

    def __init__(
        self,
        weight: Optional[Union[Tensor, Sequence[Any]]] = None,
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
        """Computes the loss."""
        return reduce_loss(bce_loss(input, target, self.weight), self.reduction, None)


BCELoss.spec = LossSpec(
    functions=(bce_loss,),
    calls=weighted_calls(Role.PROBABILITIES, ('weight',)),
    variants={
        'default': {},
        'weight': {'weight': [0.5, 1.0, 0.0, 2.0]},
        'map_weight': {'weight': [[[0.5]], [[1.0]], [[0.0]]]},
        'sum': {'reduction': 'sum'},
        'deprecated': {'size_average': False, 'reduce': True},
        'none': {'reduction': 'none'},
    },
    sizes=lambda loss: weight_sizes(loss, ('weight',)),
    references=('https://pytorch.org/docs/stable/generated/torch.nn.BCELoss.html',),
    stands_in_for=(HostClass('torch.BCELoss'),),
    differences=(
        Difference(
            'torch.BCELoss',
            'a probability outside [0, 1] gives NaN, a target outside it enters the formula as it is; torch raises '
            'RuntimeError for both',
            'no graph can raise for a value',
            'tests/test_differences.py',
        ),
        Difference(
            'torch.BCELoss',
            'gradient of inputs within 1e-12 of 0 or 1: the derivative itself, and 0 where the logarithm is clamped; '
            'torch limits it to 1e12',
            'the derivative is what float64 arithmetic gives',
            'tests/test_differences.py',
        ),
        Difference(
            'torch.BCELoss',
            'NaN under weight 0 contributes 0; torch raises RuntimeError',
            'contract 3: an element that is switched off contributes nothing to value or gradient',
            'tests/test_differences.py',
        ),
    ),
    constants=('weight',),
)
