"""Triplet loss of all triplets of a batch."""

from typing import ClassVar, Tuple

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


def batch_all_triplet_loss(
    inputs: Tensor, targets: Tensor, margin: float = 0.3, squared: bool = False
) -> Tuple[Tensor, Tensor]:
    r"""Mean of the positive losses among all triplets, and their number.

    .. math::
        \ell = \frac{1}{|T|} \sum_{(a,p,n) \in T} d(a, p) - d(a, n) + m, \qquad
        T = \{(a, p, n): a \ne p,\, y_a = y_p \ne y_n,\, d(a, p) - d(a, n) + m > 0\}

    with :math:`d(a, b) = \sqrt{\max(\lVert f_a - f_b \rVert^2, 10^{-12})}`. The sum is linear in the distances: each
    counts as often as it occurs in T. Sorting each anchor's d(a, p) + m and d(a, n) gives these counts in
    :math:`O(N^2 \log N)`. Second derivatives raise RuntimeError.

    Args:
        inputs: features f, (N, D).
        targets: identities y, integers, (N).
        margin: m.
        squared: whether :math:`d(a, b) = \lVert f_a - f_b \rVert^2`.

    Returns:
        Two scalars: the loss, 0 where T is empty, and the size of T, as a float.

    Raises:
        ValueError: shapes do not match.
    """
    check_embeddings(inputs, targets, 'inputs', 'targets')
    x = upcast(inputs)
    positive, negative = identity_masks(targets)
    pairwise = pairwise_squared_distances(x.detach())
    d = distances_of(mining_distances(pairwise), not squared)
    # on ties d(a, p) + m comes before d(a, n), because the triplet's loss is 0
    order = ascending_order(torch.cat([d + margin, d], 1))
    none = torch.zeros_like(positive)
    # how many n have d(a, n) < d(a, p) + m, and how many p have d(a, p) + m > d(a, n)
    of_positive = counted_up_to(order, torch.cat([none, negative], 1))[:, : d.size(1)]
    not_of_negative = counted_up_to(order, torch.cat([positive, none], 1))[:, d.size(1) :]
    of_negative = positive.sum(1).unsqueeze(1) - not_of_negative
    weights = (torch.where(positive, of_positive, 0) - torch.where(negative, of_negative, 0)).to(d.dtype)
    count = torch.where(positive, of_positive, 0).sum(-1).sum().to(d.dtype)
    loss = average(weighted_distances(x, pairwise, weights, not squared) + margin * count, count)
    loss = poison(loss, triplets_have_values(squared_lengths(x), positive, negative, infinite=True))
    return loss.to(x.dtype), count.to(x.dtype)


@LOSSES.register_module()
class BatchAllTripletLoss(nn.Module):
    """Embeddings: mean triplet loss over all triplets of a batch that violate the margin.

    See :func:`batch_all_triplet_loss` for the formula.

    Args:
        margin: by how much every negative must be farther than every positive.
        squared: whether distances are squared.
        loss_weight: factor of the loss.

    Shapes:
        Features (N, D), identities (N). Returns two scalars: the mean over the triplets whose loss is positive, and the
        number of these, which shows training progress. An empty batch, one identity only, or no such triplet give 0.

    Raises:
        ValueError: shapes do not match.

    Reference:
        Hermans et al., In Defense of the Triplet Loss for Person Re-Identification, 2017.
    """

    spec: ClassVar[LossSpec]

    def __init__(self, margin: float = 0.3, squared: bool = False, loss_weight: float = 1.0) -> None:
        super().__init__()
        self.margin = float(margin)
        self.squared = squared
        self.loss_weight = float(loss_weight)

    def forward(self, inputs: Tensor, targets: Tensor) -> Tuple[Tensor, Tensor]:
        """Computes the loss of features and their identities, and the number of triplets with a positive loss."""
        loss, count = batch_all_triplet_loss(inputs, targets, self.margin, self.squared)
        return self.loss_weight * loss, count


BatchAllTripletLoss.spec = LossSpec(
    functions=(batch_all_triplet_loss,),
    calls=(
        Call(
            'features',
            (
                Input('inputs', Role.FEATURES, 'N D', differentiable=True),
                Input('targets', Role.IDENTITIES, 'N'),
            ),
            outputs=('loss', 'count'),
        ),
    ),
    variants={
        'default': {},
        'wide': {'margin': 1.0, 'loss_weight': 0.5},
        'squared': {'squared': True, 'margin': 0.2},
    },
    references=('https://arxiv.org/abs/1703.07737',),
)
