"""Hinge embedding loss."""

from typing import ClassVar, Optional

import torch
from torch import Tensor, nn

from lossreg.arith import check_same_shape, upcast
from lossreg.ops.reductions import reduce_loss
from lossreg.options import legacy_reduction
from lossreg.registry import LOSSES
from lossreg.spec import Call, Difference, HostClass, Input, LossSpec, Role
from lossreg.spec_parts.differences import no_broadcast


def hinge_embedding_loss(input: Tensor, target: Tensor, margin: float = 1.0) -> Tensor:
    r"""Hinge embedding loss of each distance.

    .. math::
        \ell = \begin{cases} x & y = 1 \\ \max(0,\; m - x) & y = -1 \end{cases}

    Args:
        input: x, the distance between two samples, of any shape. Negative distances are used as they are.
        target: y of the same shape: 1 for similar samples, -1 for dissimilar ones. Any other number gives the sum of
            both terms, as in torch; NaN gives NaN.
        margin: m, how far apart dissimilar samples should be.

    Returns:
        The losses, of the shape of ``input``.

    Raises:
        ValueError: shapes do not match.
    """
    check_same_shape(target, input, 'target', 'input')
    x, y = upcast(input), upcast(target)
    apart = torch.where(y != 1, (margin - x).clamp(min=0.0), 0.0)
    alike = torch.where(y != -1, x, 0.0)
    return torch.where(torch.isnan(y), torch.nan, apart + alike)


@LOSSES.register_module()
class HingeEmbeddingLoss(nn.Module):
    """Distances of labelled pairs: small if similar, above a margin if not.

    Drop-in replacement for ``torch.nn.HingeEmbeddingLoss`` (same call and numbers); see :func:`hinge_embedding_loss`
    for the formula.

    Args:
        margin: how far apart dissimilar samples should be.
        size_average: deprecated; False means ``reduction='sum'``.
        reduce: deprecated; False means ``reduction='none'``.
        reduction: ``none``, ``mean`` (over all elements) or ``sum``.

    Shapes:
        Distances and targets of the same shape. Returns a scalar, or that shape with reduction ``none``. An empty batch
        gives 0.

    Raises:
        ValueError: unknown ``reduction``, shapes do not match.

    Reference:
        torch.nn.HingeEmbeddingLoss.
    """

    spec: ClassVar[LossSpec]

    def __init__(
        self,
        margin: float = 1.0,
        size_average: Optional[bool] = None,
        reduce: Optional[bool] = None,
        reduction: str = 'mean',
    ) -> None:
        super().__init__()
        self.margin = float(margin)
        self.size_average = size_average
        self.reduce = reduce
        self.reduction = legacy_reduction(size_average, reduce, reduction)

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        """Computes the loss of distances against targets of 1 (similar) and -1."""
        return reduce_loss(hinge_embedding_loss(input, target, self.margin), self.reduction, None)


def _call(name: str, shape: str) -> Call:
    """A call with distances of the given shape."""
    return Call(name, (Input('input', Role.LOGITS, shape, differentiable=True), Input('target', Role.SIGNS, shape)))


HingeEmbeddingLoss.spec = LossSpec(
    functions=(hinge_embedding_loss,),
    calls=(_call('distances', 'N'), _call('matrix', 'N D')),
    variants={
        'default': {},
        'margin': {'margin': 2.5},
        'legacy': {'size_average': False, 'reduce': True},
        'sum': {'reduction': 'sum', 'margin': 0.5},
        'none': {'reduction': 'none'},
    },
    references=('https://docs.pytorch.org/docs/stable/generated/torch.nn.HingeEmbeddingLoss.html',),
    stands_in_for=(HostClass('torch.HingeEmbeddingLoss'),),
    differences=(
        no_broadcast('torch.HingeEmbeddingLoss', 'tests/test_differences.py'),
        Difference(
            'torch.HingeEmbeddingLoss',
            'a target that is NaN gives NaN; torch gives a finite number',
            'contract 3: NaN in a counted element reaches the loss',
            'tests/test_differences.py',
        ),
    ),
)
