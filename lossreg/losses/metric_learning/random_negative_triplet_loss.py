"""Triplet loss with a random negative among those that violate the margin."""

from typing import ClassVar, Optional

import torch
from torch import Tensor, nn

from lossreg.arith import check_dim, check_size, poison, upcast
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


def random_negative_triplet_loss(
    inputs: Tensor, targets: Tensor, noise: Tensor, margin: float = 0.2, squared: bool = True
) -> Tensor:
    r"""Mean triplet loss of all positive pairs, each with a random negative that violates the margin.

    .. math::
        \ell = \operatorname{mean}_{a \ne p,\, y_a = y_p,\, V_{ap} \ne \emptyset} d(a, p) - d(a, n_{ap}) + m, \qquad
        V_{ap} = \{n: y_n \ne y_a,\, d(a, n) < d(a, p) + m\}

    with :math:`d(a, b) = \lVert f_a - f_b \rVert^2`; n is element :math:`\lfloor u_{ap} |V_{ap}| \rfloor`, counted from
    0, of V sorted by distance, ties by index. Negatives are chosen without gradient in float64. Second derivatives
    raise RuntimeError.

    Args:
        inputs: features f, (N, D).
        targets: identities y, integers, (N).
        noise: u in [0, 1), (N, N): a random number for each pair.
        margin: m.
        squared: False for :math:`d(a, b) = \sqrt{\max(\lVert f_a - f_b \rVert^2, 10^{-12})}`.

    Returns:
        A scalar; 0 where nothing violates the margin.

    Raises:
        ValueError: shapes do not match.
    """
    check_embeddings(inputs, targets, 'inputs', 'targets')
    check_dim(noise, 2, 'noise')
    check_size(noise, 0, inputs.size(0), 'noise', 'rows of inputs')
    check_size(noise, 1, inputs.size(0), 'noise', 'rows of inputs')
    x = upcast(inputs)
    positive, negative = identity_masks(targets)
    pairwise = pairwise_squared_distances(x.detach())
    d = distances_of(mining_distances(pairwise), not squared)
    # |V|: negatives before d(a, p) + m; on ties the negative comes after it
    order = ascending_order(torch.cat([d + margin, d], 1))
    violating = counted_up_to(order, torch.cat([torch.zeros_like(negative), negative], 1))[:, : d.size(1)]
    # floor(u |V|), in float64: in float32 it may be |V| itself
    rank = (noise.detach().double() * violating).floor().to(torch.int64)
    rank = torch.minimum(rank, violating - 1).clamp(min=0)
    chosen = ascending_order(torch.where(negative, d, torch.inf)).gather(1, rank)
    counted = (positive & (violating > 0)).to(d.dtype)
    weights = counted - torch.zeros_like(d).scatter_add(1, chosen, counted)
    # d(a, p) - d(a, n) + m
    count = counted.sum(-1).sum()
    loss = average(weighted_distances(x, pairwise, weights, not squared) + margin * count, count)
    return poison(loss, triplets_have_values(squared_lengths(x), positive, negative, infinite=False)).to(x.dtype)


@LOSSES.register_module()
class RandomNegativeTripletLoss(nn.Module):
    """Embeddings: triplet loss with a random negative among those that violate the margin.

    See :func:`random_negative_triplet_loss` for the formula.

    Args:
        margin: by how much a negative must be farther than the positive.
        squared: whether distances are squared.
        loss_weight: factor of the result.

    Shapes:
        Features (N, D), identities (N), and optionally noise in [0, 1), (N, N), which artefacts need. Without it, eager
        mode and TorchScript draw it. Returns the mean over those positive pairs that have a violating negative, a
        scalar. An empty batch, one identity only, or no violating negative give 0.

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

    def forward(self, inputs: Tensor, targets: Tensor, noise: Optional[Tensor] = None) -> Tensor:
        """Computes the loss of features and their identities."""
        if noise is None:
            noise = torch.rand([inputs.size(0), inputs.size(0)], device=inputs.device)
        loss = random_negative_triplet_loss(inputs, targets, noise, self.margin, self.squared)
        return self.loss_weight * loss


RandomNegativeTripletLoss.spec = LossSpec(
    functions=(random_negative_triplet_loss,),
    calls=(
        Call(
            'features',
            (
                Input('inputs', Role.FEATURES, 'N D', differentiable=True),
                Input('targets', Role.IDENTITIES, 'N'),
                Input('noise', Role.NOISE, 'N N'),
            ),
        ),
    ),
    variants={
        'default': {},
        'wide': {'margin': 2.0, 'loss_weight': 0.5},
        'root': {'squared': False, 'margin': 0.5},
    },
    references=('https://arxiv.org/abs/1503.03832',),
)
