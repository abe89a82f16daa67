"""Binary cross-entropy of probabilities."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Optional, Tuple, Union

from torch import Tensor, nn

from lossreg.ops.binary_cross_entropy import weighted_cross_entropy_of_probabilities
from lossreg.ops.reductions import reduce_loss
from lossreg.options import allow_missing, as_weight, legacy_reduction
from lossreg.registry import LOSSES
from lossreg.spec import Call, Difference, HostClass, Input, LossSpec, Role


def bce_loss(input: Tensor, target: Tensor, weight: Optional[Tensor] = None) -> Tensor:
    r"""Binary cross-entropy of each probability, weighted.

    .. math::
        \ell = -w \left(t \log p + (1 - t) \log(1 - p)\right)

    A logarithm is at least -100, as in torch; its gradient there is 0.

    Args:
        input: probabilities p, of any shape. Outside [0, 1] they give NaN.
        target: t in [0, 1], of the same shape.
        weight: w, of a shape that broadcasts to it. Where it is 0, NaN does not count.

    Returns:
        The losses, of the shape of ``input``.

    Raises:
        ValueError: shapes do not match.
    """
    return weighted_cross_entropy_of_probabilities(input, target, weight)


@LOSSES.register_module()
class BCELoss(nn.Module):
    """Binary cross-entropy of probabilities, for labels that do not exclude each other.

    It has torch.nn.BCELoss's call and numbers; see :func:`bce_loss` for the formula.

    The input is the probability of each class by itself: the result of a sigmoid, not of a softmax, whose
    probabilities exclude each other. For logits use ``BCEWithLogitsLoss``, which is also exact at any logit.

    Args:
        weight: weights, a tensor or list that broadcasts to the input, such as (C); kept as a buffer.
        size_average: deprecated; False means ``reduction='sum'``.
        reduce: deprecated; False means ``reduction='none'``.
        reduction: ``none``, ``mean`` (over all elements, whatever their weight) or ``sum``.

    Shapes:
        Inputs and targets of one shape. Returns a scalar, or that shape with reduction ``none``. An empty batch, or all
        weights 0, give 0.

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


def weighted_calls(role: Role, options: Tuple[str, ...]) -> Tuple[Call, ...]:
    """The calls of binary cross-entropies, as far as the buffers named ``options`` broadcast to them."""
    return tuple(
        Call(
            name,
            (Input('input', role, shape, differentiable=True), Input('target', Role.TARGETS, shape)),
            when=_of_rank(ranks, options),
        )
        for name, shape, ranks in (('vectors', 'N C', (0, 1, 2)), ('images', 'N C H W', (0, 3, 4)))
    )


def _of_rank(ranks: Tuple[int, ...], options: Tuple[str, ...]) -> Callable[[Any], bool]:
    """Whether an instance's buffers have one of these numbers of dimensions."""
    return lambda loss: all(weight.dim() in ranks for weight in _weights(loss, options))


def weight_sizes(loss: nn.Module, options: Tuple[str, ...]) -> Mapping[str, int]:
    """Dimensions that the buffers named ``options`` fix: all of theirs but those of size 1."""
    sizes = {}
    for weight in _weights(loss, options):
        symbols = ('N', 'C') if weight.dim() < 3 else ('N', 'C', 'H', 'W')
        named = zip(reversed(symbols), reversed(weight.shape), strict=False)
        sizes.update({symbol: size for symbol, size in named if size != 1})
    return sizes


def _weights(loss: nn.Module, options: Tuple[str, ...]) -> Tuple[Tensor, ...]:
    """Those of the buffers that are there."""
    return tuple(getattr(loss, option) for option in options if getattr(loss, option) is not None)


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
            'a probability outside [0, 1] gives NaN, a target there counts as the formula has it; torch raises '
            'RuntimeError for both',
            'no graph can raise for a value',
            'tests/test_torch_regression.py',
        ),
        Difference(
            'torch.BCELoss',
            'gradient of inputs within 1e-12 of 0 or 1: the derivative itself, and 0 where the logarithm is cut off; '
            'torch limits it to 1e12',
            'the derivative is what float64 arithmetic gives',
            'tests/test_torch_regression.py',
        ),
        Difference(
            'torch.BCELoss',
            'NaN under weight 0 contributes 0; torch raises RuntimeError',
            'contract 3: an element that is switched off contributes nothing to value or gradient',
            'tests/test_torch_regression.py',
        ),
    ),
    constants=('weight',),
)
