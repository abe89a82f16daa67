"""Triplet margin loss of given triplets, with any distance."""

from collections.abc import Callable
from typing import Any, ClassVar, Final, Optional, Union

import torch
from torch import Tensor, nn

from lossreg.arith import check_same_shape, upcast
from lossreg.ops.reductions import reduce_loss
from lossreg.ops.triplets import pairwise_distance, triplet_hinge
from lossreg.options import check_reduction
from lossreg.registry import LOSSES
from lossreg.spec import Call, Difference, HostClass, Input, LossSpec, Role
from lossreg.spec_parts.differences import no_broadcast


def named_distance(x1: Tensor, x2: Tensor, name: str) -> Tensor:
    r"""Distance of each pair of vectors.

    .. math::
        \text{euclidean: } \lVert x_1 - x_2 + 10^{-6} \rVert \qquad
        \text{squared: } \lVert x_1 - x_2 \rVert^2 \qquad
        \text{cosine: } 1 - \frac{x_1 \cdot x_2}{\max(\lVert x_1 \rVert, 10^{-8}) \max(\lVert x_2 \rVert, 10^{-8})}

    Args:
        x1: vectors (..., D).
        x2: vectors of the same shape.
        name: ``euclidean`` (torch's ``PairwiseDistance()``), ``squared`` or ``cosine``.

    Returns:
        (...).

    Raises:
        ValueError: unknown ``name``.
    """
    check_distance(name)
    if name == 'euclidean':
        return pairwise_distance(x1, x2, 2.0, 1e-6)
    x1, x2 = upcast(x1), upcast(x2)
    if name == 'squared':
        difference = x1 - x2
        return (difference * difference).sum(-1)
    return 1.0 - (x1 * x2).sum(-1) / (_length(x1) * _length(x2))


def _length(x: Tensor) -> Tensor:
    """max(|x|, 1e-8), with gradient 0 where 1e-8 is larger."""
    squares = (x * x).sum(-1)
    return torch.where(squares < 1e-16, 1e-16, squares).sqrt()


def check_distance(name: str) -> None:
    """Raises ValueError unless ``name`` is a name that :func:`named_distance` knows."""
    if name != 'euclidean' and name != 'squared' and name != 'cosine':
        raise ValueError(f"distance_function must be 'euclidean', 'squared', 'cosine' or callable, got '{name}'")


def triplet_margin_with_distance_loss(
    anchor: Tensor,
    positive: Tensor,
    negative: Tensor,
    distance: str = 'euclidean',
    margin: float = 1.0,
    swap: bool = False,
) -> Tensor:
    r"""Triplet margin loss of each triplet, with a distance d of :func:`named_distance`.

    .. math::
        \ell = \max\big(0,\; m + d(a, p) - d(a, n)\big)

    With ``swap``, the smaller of d(a, n) and d(p, n) replaces d(a, n).

    Args:
        anchor: vectors a, (N, D), or one (D).
        positive: vectors p of the same shape.
        negative: vectors n of the same shape.
        distance: d, by name.
        margin: m, by how much the negative must be farther than the positive.
        swap: whether the positive may replace the anchor.

    Returns:
        (N), or 0-d.

    Raises:
        ValueError: shapes do not match, unknown ``distance``.
    """
    _check_shapes(anchor, positive, negative)
    between: Optional[Tensor] = None
    if swap:
        between = named_distance(positive, negative, distance)
    to_positive = named_distance(anchor, positive, distance)
    return triplet_hinge(to_positive, named_distance(anchor, negative, distance), between, margin)


def _check_shapes(anchor: Tensor, positive: Tensor, negative: Tensor) -> None:
    check_same_shape(positive, anchor, 'positive', 'anchor')
    check_same_shape(negative, anchor, 'negative', 'anchor')


@LOSSES.register_module()
class TripletMarginWithDistanceLoss(nn.Module):
    """Embeddings: triplet loss of given triplets, with any distance.

    Drop-in replacement for ``torch.nn.TripletMarginWithDistanceLoss`` (same call and numbers), for any distance.

    See :func:`triplet_margin_with_distance_loss` for the formula.

    Args:
        distance_function: None or ``'euclidean'`` (torch's default), ``'squared'``, ``'cosine'``, or a function or
            module of two tensors. Half precision is passed to a function as float32. For export, TorchScript must be
            able to compile it, or ``torch.export`` to trace it.
        margin: by how much the negative must be farther than the positive, > 0.
        swap: whether the positive replaces the anchor where it is nearer to the negative.
        reduction: ``none``, ``mean`` (over triplets) or ``sum``.

    Shapes:
        Three tensors of shape (N, D), or of shape (D). Returns a scalar, or (N) with reduction ``none``. An empty batch
        gives 0.

    Raises:
        ValueError: ``margin`` is not above 0, unknown ``distance_function`` or ``reduction``, shapes do not match.

    Reference:
        Balntas et al., Learning shallow convolutional feature descriptors with triplet losses, BMVC 2016.
    """

    spec: ClassVar[LossSpec]

    # a constant, so that TorchScript compiles only the branch of `forward` that is taken
    has_name: Final[bool]

    def __init__(
        self,
        *,
        distance_function: Union[str, Callable[[Tensor, Tensor], Tensor], None] = None,
        margin: float = 1.0,
        swap: bool = False,
        reduction: str = 'mean',
    ) -> None:
        super().__init__()
        check_reduction(reduction)
        if not margin > 0:
            raise ValueError(f'margin must be > 0, got {margin}')
        self.has_name = not callable(distance_function)
        self.distance = 'euclidean' if distance_function is None else str(distance_function) if self.has_name else ''
        if self.has_name:
            check_distance(self.distance)
        self.distance_function: Any = distance_function
        self.margin = float(margin)
        self.swap = swap
        self.reduction = reduction

    def forward(self, anchor: Tensor, positive: Tensor, negative: Tensor) -> Tensor:
        """Computes the loss of triplets."""
        if self.has_name:
            loss = triplet_margin_with_distance_loss(anchor, positive, negative, self.distance, self.margin, self.swap)
        else:
            _check_shapes(anchor, positive, negative)
            a, p, n = upcast(anchor), upcast(positive), upcast(negative)
            between: Optional[Tensor] = None
            if self.swap:
                between = self.distance_function(p, n)
            loss = triplet_hinge(self.distance_function(a, p), self.distance_function(a, n), between, self.margin)
        return reduce_loss(loss, self.reduction, None)


def _call(name: str, shape: str, batch: Optional[str]) -> Call:
    """A call with vectors of the given shape."""
    names = ('anchor', 'positive', 'negative')
    return Call(name, tuple(Input(name, Role.FEATURES, shape, differentiable=True) for name in names), batch=batch)


TripletMarginWithDistanceLoss.spec = LossSpec(
    functions=(triplet_margin_with_distance_loss,),
    calls=(_call('triplets', 'N D', None), _call('unbatched', 'D', '')),
    variants={
        'default': {},
        'swap': {'swap': True, 'margin': 2.0, 'reduction': 'sum'},
        'squared': {'distance_function': 'squared', 'margin': 0.2},
        'none': {'distance_function': 'euclidean', 'reduction': 'none'},
        'cosine': {'distance_function': 'cosine', 'swap': True},
    },
    references=('https://bmva-archive.org.uk/bmvc/2016/papers/paper119/index.html',),
    stands_in_for=(HostClass('torch.TripletMarginWithDistanceLoss'),),
    differences=(
        no_broadcast('torch.TripletMarginWithDistanceLoss', 'tests/test_differences.py'),
        Difference(
            'torch.TripletMarginWithDistanceLoss',
            "distance_function may be a name, 'euclidean', 'squared' or 'cosine'; torch accepts only callables",
            'a config holds text',
            'tests/test_differences.py',
        ),
    ),
)
