"""Triplet loss with semi-hard negatives (FaceNet)."""

from typing import ClassVar

import torch
from torch import Tensor, nn

from lossreg.arith import poison, upcast
from lossreg.ops.embeddings import (
    ascending_order,
    check_embeddings,
    counted_up_to,
    distances_of,
    identity_masks,
    mining_distances,
    pairwise_squared_distances,
    squared_lengths,
    triplets_have_values,
    weighted_distances,
)
from lossreg.ops.reductions import average
from lossreg.registry import LOSSES
from lossreg.spec import Call, Input, LossSpec, Role


def semi_hard_negatives(distances: Tensor, negative: Tensor) -> Tensor:
    """For each anchor a and row p: the nearest negative farther from a than p is, or else the farthest one.

    Args:
        distances: finite, (N, N).
        negative: which rows are negatives of each anchor, (N, N).

    Returns:
        Indices, (N, N); meaningless for an anchor without negatives.
    """
    # on ties a negative comes before p, because it is not farther
    order = ascending_order(torch.cat([distances, distances], 1))
    nearer = counted_up_to(order, torch.cat([negative, torch.zeros_like(negative)], 1))[:, distances.size(1) :]
    last = negative.sum(1).unsqueeze(1) - 1
    rank = torch.minimum(nearer, last).clamp(min=0)
    return ascending_order(torch.where(negative, distances, torch.inf)).gather(1, rank)


def semi_hard_triplet_loss(inputs: Tensor, targets: Tensor, margin: float = 0.2, squared: bool = True) -> Tensor:
    r"""Mean triplet loss of all positive pairs, each with its semi-hard negative.

    .. math::
        \ell = \operatorname{mean}_{a \ne p,\, y_a = y_p} \max(0,\; d(a, p) - d(a, n_{ap}) + m), \qquad
        n_{ap} = \arg\min_{n: y_n \ne y_a,\, d(a, n) > d(a, p)} d(a, n)

    with :math:`d(a, b) = \lVert f_a - f_b \rVert^2`. Where no negative is farther than the positive, n is the farthest
    negative, as in TensorFlow Addons. Pairs without any negative do not count. Negatives are mined without gradient in
    float64; sorting takes :math:`O(N^2 \log N)`. Second derivatives raise RuntimeError.

    Args:
        inputs: features f, (N, D).
        targets: identities y, integers, (N).
        margin: m.
        squared: False for :math:`d(a, b) = \sqrt{\max(\lVert f_a - f_b \rVert^2, 10^{-12})}`.

    Returns:
        A scalar; 0 without pairs.

    Raises:
        ValueError: shapes do not match.
    """
    check_embeddings(inputs, targets, 'inputs', 'targets')
    x = upcast(inputs)
    positive, negative = identity_masks(targets)
    pairwise = pairwise_squared_distances(x.detach())
    d = distances_of(mining_distances(pairwise), not squared)
    chosen = semi_hard_negatives(d, negative)
    counted = positive & (negative.sum(1) > 0).unsqueeze(1)
    # d(a, p) - d(a, n) + m > 0
    active = (counted & (d - d.gather(1, chosen) + margin > 0)).to(d.dtype)
    weights = active - torch.zeros_like(d).scatter_add(1, chosen, active)
    summed = weighted_distances(x, pairwise, weights, not squared) + margin * active.sum(-1).sum()
    loss = average(summed, counted.sum().to(d.dtype))
    return poison(loss, triplets_have_values(squared_lengths(x), positive, negative, infinite=True)).to(x.dtype)


@LOSSES.register_module()
class SemiHardTripletLoss(nn.Module):
    """Embeddings (FaceNet): triplet loss with the nearest negative that is farther than the positive.

    See :func:`semi_hard_triplet_loss` for the formula.

    Args:
        margin: by how much the negative must be farther than the positive.
        squared: whether distances are squared, as in the paper.
        loss_weight: factor of the result.

    Shapes:
        Features (N, D), usually normalised, and identities (N). Returns the mean over positive pairs, a scalar. An
        empty batch, one identity only, or no two rows of one identity give 0.

    Raises:
        ValueError: shapes do not match.

    Reference:
        Schroff et al., FaceNet: A Unified Embedding for Face Recognition and Clustering, CVPR 2015.
    """

    spec: ClassVar[LossSpec]

    def __init__(self, margin: float = 0.2, squared: bool = True, loss_weight: float = 1.0) -> None:
        super().__init__()
        self.margin = float(margin)
        self.squared = squared
        self.loss_weight = float(loss_weight)

    def forward(self, inputs: Tensor, targets: Tensor) -> Tensor:
        """Computes the loss of features and their identities."""
        return self.loss_weight * semi_hard_triplet_loss(inputs, targets, self.margin, self.squared)


SemiHardTripletLoss.spec = LossSpec(
    functions=(semi_hard_triplet_loss,),
    calls=(
        Call(
            'features',
            (
                Input('inputs', Role.FEATURES, 'N D', differentiable=True),
                Input('targets', Role.IDENTITIES, 'N'),
            ),
        ),
    ),
    variants={
        'default': {},
        'wide': {'margin': 1.0, 'loss_weight': 0.5},
        'root': {'squared': False, 'margin': 0.3},
    },
    references=('https://arxiv.org/abs/1503.03832',),
)
