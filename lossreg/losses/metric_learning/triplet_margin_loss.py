"""Triplet margin loss of given triplets, with a p-norm."""

from typing import ClassVar, Optional

from torch import Tensor, nn

from lossreg.arith import check_same_shape
from lossreg.ops.reductions import reduce_loss
from lossreg.ops.triplets import pairwise_distance, triplet_hinge
from lossreg.options import legacy_reduction
from lossreg.registry import LOSSES
from lossreg.spec import Call, Difference, HostClass, Input, LossSpec, Role
from lossreg.spec_parts.differences import no_broadcast


def triplet_margin_loss(
    anchor: Tensor,
    positive: Tensor,
    negative: Tensor,
    margin: float = 1.0,
    p: float = 2.0,
    eps: float = 1e-6,
    swap: bool = False,
) -> Tensor:
    r"""Triplet margin loss of each triplet.

    .. math::
        \ell = \max\big(0,\; m + d(a, p) - d(a, n)\big), \qquad
        d(x, y) = \lVert x - y + \epsilon \rVert_p

    With ``swap``, the smaller of d(a, n) and d(p, n) replaces d(a, n).

    Args:
        anchor: vectors a, (N, D), or one (D).
        positive: vectors p of the same shape.
        negative: vectors n of the same shape.
        margin: m, by how much the negative must be farther than the positive.
        p: exponent of the norm, > 0.
        eps: added to every difference, as in torch.
        swap: whether the positive may replace the anchor.

    Returns:
        (N), or 0-d.

    Raises:
        ValueError: shapes do not match.
    """
    check_same_shape(positive, anchor, 'positive', 'anchor')
    check_same_shape(negative, anchor, 'negative', 'anchor')
    between: Optional[Tensor] = None
    if swap:
        between = pairwise_distance(positive, negative, p, eps)
    to_positive = pairwise_distance(anchor, positive, p, eps)
    return triplet_hinge(to_positive, pairwise_distance(anchor, negative, p, eps), between, margin)


@LOSSES.register_module()
class TripletMarginLoss(nn.Module):
    """Embeddings: triplet loss of given triplets, with a p-norm.

    Drop-in replacement for ``torch.nn.TripletMarginLoss`` (same call and numbers); see :func:`triplet_margin_loss` for
    the formula.

    Args:
        margin: by how much the negative must be farther than the positive, > 0.
        p: exponent of the norm, > 0.
        eps: added to every difference.
        swap: whether the positive replaces the anchor where it is nearer to the negative.
        size_average: deprecated; False means ``reduction='sum'``.
        reduce: deprecated; False means ``reduction='none'``.
        reduction: ``none``, ``mean`` (over triplets) or ``sum``.

    Shapes:
        Three tensors of shape (N, D), or of shape (D). Returns a scalar, or (N) with reduction ``none``. An empty batch
        gives 0.

    Raises:
        ValueError: ``margin`` or ``p`` is not above 0, unknown ``reduction``, shapes do not match.

    Reference:
        Balntas et al., Learning shallow convolutional feature descriptors with triplet losses, BMVC 2016.
    """

    spec: ClassVar[LossSpec]

    def __init__(
        self,
        margin: float = 1.0,
        p: float = 2.0,
        eps: float = 1e-6,
        swap: bool = False,
        size_average: Optional[bool] = None,
        reduce: Optional[bool] = None,
        reduction: str = 'mean',
    ) -> None:
        super().__init__()
        if not margin > 0:
            raise ValueError(f'margin must be > 0, got {margin}')
        if not p > 0:
            raise ValueError(f'p must be > 0, got {p}')
        self.margin = float(margin)
        self.p = float(p)
        self.eps = float(eps)
        self.swap = swap
        self.size_average = size_average
        self.reduce = reduce
        self.reduction = legacy_reduction(size_average, reduce, reduction)

    def forward(self, anchor: Tensor, positive: Tensor, negative: Tensor) -> Tensor:
        """Computes the loss of triplets."""
        loss = triplet_margin_loss(anchor, positive, negative, self.margin, self.p, self.eps, self.swap)
        return reduce_loss(loss, self.reduction, None)


def _call(name: str, shape: str, batch: Optional[str]) -> Call:
    """A call with vectors of the given shape."""
    names = ('anchor', 'positive', 'negative')
    return Call(name, tuple(Input(name, Role.FEATURES, shape, differentiable=True) for name in names), batch=batch)


TripletMarginLoss.spec = LossSpec(
    functions=(triplet_margin_loss,),
    calls=(_call('triplets', 'N D', None), _call('unbatched', 'D', '')),
    variants={
        'default': {},
        'manhattan': {'p': 1.0, 'margin': 0.5},
        'cubic': {'p': 3.0, 'eps': 1e-4},
        'half': {'p': 0.5, 'reduction': 'sum'},
        'swap': {'swap': True, 'margin': 2.0},
        'legacy': {'size_average': False, 'reduce': True},
        'none': {'reduction': 'none', 'swap': True},
    },
    references=('https://bmva-archive.org.uk/bmvc/2016/papers/paper119/index.html',),
    stands_in_for=(HostClass('torch.TripletMarginLoss'),),
    differences=(
        no_broadcast('torch.TripletMarginLoss', 'tests/test_differences.py'),
        Difference(
            'torch.TripletMarginLoss',
            'p of 0 or below raises ValueError; torch accepts it',
            'it is not a norm, and has no gradient',
            'tests/test_differences.py',
        ),
    ),
)
