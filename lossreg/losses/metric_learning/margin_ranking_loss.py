"""Margin ranking loss."""

from typing import ClassVar, Optional

from torch import Tensor, nn

from lossreg.arith import check_same_shape, upcast
from lossreg.ops.reductions import reduce_loss
from lossreg.options import legacy_reduction
from lossreg.registry import LOSSES
from lossreg.spec import Call, Difference, HostClass, Input, LossSpec, Role
from lossreg.spec_parts.differences import no_broadcast


def margin_ranking_loss(input1: Tensor, input2: Tensor, target: Tensor, margin: float = 0.0) -> Tensor:
    r"""Margin ranking loss of each pair of scores.

    .. math::
        \ell = \max(0,\; -y\,(x_1 - x_2) + m)

    Args:
        input1: scores x_1, of any shape.
        input2: scores x_2, of the same shape.
        target: y of the same shape: 1 where x_1 should be the larger, -1 where x_2 should. Or of shape (M) with scores
            (N, 1): then every row is paired with every target.
        margin: m, by how much the larger should exceed the other.

    Returns:
        The losses, of the shape of ``input1``, or (N, M).

    Raises:
        ValueError: shapes do not match.
    """
    check_same_shape(input1, input2, 'input1', 'input2')
    if input1.dim() == 2 and target.dim() == 1:
        check_same_shape(input1, input1[:, :1], 'input1', 'the one column that a target (M) allows')
    else:
        check_same_shape(target, input1, 'target', 'input1')
    # max(0, -y (x_1 - x_2) + m)
    return (margin - upcast(target) * (upcast(input1) - upcast(input2))).clamp(min=0.0)


@LOSSES.register_module()
class MarginRankingLoss(nn.Module):
    """Ranking: of two scores, the better one should exceed the other by a margin.

    Drop-in replacement for ``torch.nn.MarginRankingLoss`` (same call and numbers); see :func:`margin_ranking_loss` for
    the formula.

    Args:
        margin: by how much the higher score should exceed the other.
        size_average: deprecated; False means ``reduction='sum'``.
        reduce: deprecated; False means ``reduction='none'``.
        reduction: ``none``, ``mean`` (over all elements) or ``sum``.

    Shapes:
        Scores and targets of the same shape; or scores (N, 1) and targets (M), which give N * M losses. Returns a
        scalar, or one loss per element with reduction ``none``. An empty batch gives 0.

    Raises:
        ValueError: unknown ``reduction``, shapes do not match.

    Reference:
        torch.nn.MarginRankingLoss; Herbrich et al., Large Margin Rank Boundaries for Ordinal Regression, 2000.
    """

    spec: ClassVar[LossSpec]

    def __init__(
        self,
        margin: float = 0.0,
        size_average: Optional[bool] = None,
        reduce: Optional[bool] = None,
        reduction: str = 'mean',
    ) -> None:
        super().__init__()
        self.margin = float(margin)
        self.size_average = size_average
        self.reduce = reduce
        self.reduction = legacy_reduction(size_average, reduce, reduction)

    def forward(self, input1: Tensor, input2: Tensor, target: Tensor) -> Tensor:
        """Computes the loss of pairs of scores; ``target`` says which of each pair should be larger."""
        return reduce_loss(margin_ranking_loss(input1, input2, target, self.margin), self.reduction, None)


def _call(name: str, score: str, target: str) -> Call:
    """A call with scores and targets of these shapes."""
    return Call(
        name,
        (
            Input('input1', Role.LOGITS, score, differentiable=True),
            Input('input2', Role.LOGITS, score, differentiable=True),
            Input('target', Role.SIGNS, target),
        ),
    )


MarginRankingLoss.spec = LossSpec(
    functions=(margin_ranking_loss,),
    calls=(_call('pairs', 'N', 'N'), _call('outer', 'N 1', 'M')),
    variants={
        'default': {},
        'margin': {'margin': 0.5},
        'legacy': {'size_average': False, 'reduce': True},
        'sum': {'reduction': 'sum', 'margin': 1.0},
        'none': {'reduction': 'none'},
    },
    references=('https://docs.pytorch.org/docs/stable/generated/torch.nn.MarginRankingLoss.html',),
    stands_in_for=(HostClass('torch.MarginRankingLoss', call='pairs'),),
    differences=(
        Difference(
            'torch.MarginRankingLoss',
            'scores (N, 1) with targets (M) give (N, M) losses; current torch requires targets (1, M) for that',
            'older torch accepted them, and tutorials use them',
            'tests/test_differences.py',
        ),
        no_broadcast('torch.MarginRankingLoss', 'tests/test_differences.py'),
    ),
)
