"""Triplet loss with the hardest positive and negative of the batch."""

from typing import ClassVar, Tuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lossreg.arith import average_over, check_dim, check_leading_shape, poison, squared_distances, total, upcast
from lossreg.registry import LOSSES
from lossreg.spec import Call, Difference, HostClass, Input, LossSpec, Role


def batch_hard_pairs(inputs: Tensor, targets: Tensor) -> Tuple[Tensor, Tensor]:
    """Indices of each anchor's farthest positive and nearest negative, each (N), without gradient.

    An anchor is its own positive. Without any negative the index is N.
    """
    # one row of zeros more stands for "none": there is always something to choose from, in an empty batch too
    distances = squared_distances(inputs, F.pad(inputs, [0, 0, 0, 1]))
    same = F.pad(targets.unsqueeze(1) == targets.unsqueeze(0), [0, 1])
    none = torch.arange(distances.size(1), device=inputs.device) == inputs.size(0)
    # farthest among the same identity
    positive = torch.where(same, distances, -torch.inf).argmax(1)
    # nearest among the others
    nearest, negative = torch.where(same | none, torch.inf, distances).min(1)
    negative = torch.where(nearest == torch.inf, inputs.size(0), negative)
    return positive, negative


def batch_hard_triplet_loss(inputs: Tensor, targets: Tensor, margin: float = 0.3) -> Tensor:
    r"""Batch-hard triplet loss of each anchor.

    .. math::
        \ell_a = \max\left(0,\; \max_{p: y_p = y_a} d(a, p) - \min_{n: y_n \ne y_a} d(a, n) + m\right), \qquad
        d(a, b) = \sqrt{\max(\lVert f_a - f_b \rVert^2, 10^{-12})}

    An anchor is its own positive, and contributes 0 without any negative. Pairs are mined without gradient in float64;
    only the N chosen pairs are measured again and differentiated, from their differences, so near-duplicates
    keep their precision.

    Args:
        inputs: features f, (N, D).
        targets: identities y, integers, (N).
        margin: m.

    Returns:
        (N).

    Raises:
        ValueError: shapes do not match.
    """
    check_dim(inputs, 2, 'inputs')
    check_dim(targets, 1, 'targets')
    check_leading_shape(targets, inputs, 1, 'targets', 'inputs')
    inputs = upcast(inputs)
    positive, negative = batch_hard_pairs(inputs, targets)
    candidates = F.pad(inputs, [0, 0, 0, 1])
    # d(a, p) - d(a, n) + m
    loss = _distance(inputs, candidates, positive) - _distance(inputs, candidates, negative) + margin
    loss = torch.where(negative == inputs.size(0), 0.0, loss.clamp(min=0.0))
    # the distance of a row that is not finite to itself is NaN, and so is its farthest positive
    return poison(loss, (inputs * inputs).sum(1).isfinite())


def _distance(inputs: Tensor, candidates: Tensor, index: Tensor) -> Tensor:
    """Distance of each row of ``inputs`` to the candidate it chose."""
    difference = inputs - candidates.index_select(0, index)
    return (difference * difference).sum(1).clamp(min=1e-12).sqrt()


@LOSSES.register_module()
class TripletLoss(nn.Module):
    """Batch-hard triplet loss with mmdet's call and numbers; see :func:`batch_hard_triplet_loss` for the formula.

    Args:
        margin: how much farther the nearest negative must be than the farthest positive.
        loss_weight: factor of the result.
        hard_mining: must be True, as in mmdet.

    Shapes:
        Features (N, D), identities (N). Returns the mean over anchors, a scalar. An empty batch, or one identity only,
        gives 0 (mmdet raises).

    Raises:
        ValueError: ``hard_mining=False``, shapes do not match.

    Reference:
        Hermans et al., In Defense of the Triplet Loss for Person Re-Identification, 2017.
    """

    spec: ClassVar[LossSpec]

    def __init__(self, margin: float = 0.3, loss_weight: float = 1.0, hard_mining: bool = True) -> None:
        super().__init__()
        if not hard_mining:
            raise ValueError('only hard mining exists, here as in mmdet; leave hard_mining=True')
        self.margin = float(margin)
        self.loss_weight = float(loss_weight)
        self.hard_mining = hard_mining

    def forward(self, inputs: Tensor, targets: Tensor) -> Tensor:
        """Computes the loss of features and their identities."""
        loss = batch_hard_triplet_loss(inputs, targets, self.margin)
        return self.loss_weight * average_over(total(loss), loss.size(0))


TripletLoss.spec = LossSpec(
    functions=(batch_hard_triplet_loss,),
    calls=(
        Call(
            'features',
            (
                Input('inputs', Role.FEATURES, 'N D', differentiable=True),
                Input('targets', Role.IDENTITIES, 'N'),
            ),
        ),
    ),
    variants={'default': {}, 'wide': {'margin': 1.0, 'loss_weight': 0.5}},
    references=('https://arxiv.org/abs/1703.07737',),
    stands_in_for=(HostClass('mmdet.TripletLoss'),),
    differences=(
        Difference(
            'mmdet.TripletLoss',
            'gradient at equal distances: of one of the pairs; mmdet spreads it over all of them',
            'one pair is mined and differentiated; any choice among equals is a subgradient',
            'tests/openmmlab/test_hosts.py',
        ),
    ),
)
