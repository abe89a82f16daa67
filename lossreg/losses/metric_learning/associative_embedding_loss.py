"""Associative embedding: pulls corners of the same object together, pushes different objects apart."""

from collections.abc import Mapping
from typing import ClassVar, List, Tuple, Union

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lossreg.arith import (
    check_at_least,
    check_dim,
    check_leading_shape,
    check_numbers,
    check_same_shape,
    indices,
    keep,
    poison,
    upcast,
)
from lossreg.ops.reductions import average
from lossreg.registry import LOSSES
from lossreg.spec import Call, Difference, HostClass, Input, LossSpec, Role


def associative_embedding_loss(pred: Tensor, target: Tensor, match: Tensor) -> Tuple[Tensor, Tensor]:
    r"""The two losses of each image with objects :math:`1 \dots n`, whose corners have the embeddings a and b.

    .. math::
        \ell_{pull} = \frac1n \sum_k (a_k - c_k)^2 + (b_k - c_k)^2, \qquad
        \ell_{push} = \frac{1}{n (n - 1)} \sum_{j \ne k} \max(0, 1 - |c_j - c_k|), \qquad c_k = \frac{a_k + b_k}{2}

    Each of the M channels counts as separate objects, as in mmdet: n is M times the number of pairs.

    Args:
        pred: embeddings at the first corner, (N, M, H, W).
        target: embeddings at the second corner, (N, M, H, W).
        match: positions of the two corners of each object of each image, ((y, x), (y, x)), integers, (N, K, 2, 2). A
            pair whose first number is -1 is padding.

    Returns:
        The pull losses and the push losses, (N) each: 0 for images without objects, or with one.

    Raises:
        ValueError: shapes do not match, or ``match`` does not hold integers.
        IndexError: a position outside the map (eager on the CPU; elsewhere that image's losses are NaN).
    """
    check_dim(pred, 4, 'pred')
    check_same_shape(target, pred, 'target', 'pred')
    check_at_least(pred, 2, 1, 'pred', 'a corner in the map')
    check_at_least(pred, 3, 1, 'pred', 'a corner in the map')
    check_dim(match, 4, 'match')
    check_leading_shape(match, pred, 1, 'match', 'pred')
    match = indices(match, 'match')
    counted = match[:, :, 0, 0] != -1
    y, x = match[..., 0], match[..., 1]
    legal = torch.stack([(y >= 0) & (y < pred.size(2)), (x >= 0) & (x < pred.size(3))], 3)
    legal = check_numbers(match, legal | ~counted.unsqueeze(2).unsqueeze(3), 'match', 'places lie in the map')
    place = torch.where(legal.all(3) & counted.unsqueeze(2), y * pred.size(3) + x, 0)
    mine = counted.repeat([1, pred.size(1)])
    # one table of both maps, (N, 2, M, H W), with the offset of each map: exported, mismatched shapes then fail too
    maps = torch.stack([upcast(pred), upcast(target)], 1)
    start = torch.arange(2 * pred.size(0) * pred.size(1), device=pred.device) * (pred.size(2) * pred.size(3))
    index = start.view([pred.size(0), 2, pred.size(1), 1]) + place.transpose(1, 2).unsqueeze(2)
    corners = maps.flatten().index_select(0, index.flatten()).view([pred.size(0), 2, pred.size(1) * match.size(1)])
    corners = keep(corners, mine.unsqueeze(1))
    a, b = corners[:, 0], corners[:, 1]
    centre = 0.5 * (a + b)
    number = mine.sum(1).to(a.dtype)
    pull = average(((a - centre) * (a - centre) + (b - centre) * (b - centre)).sum(1), number)
    order = torch.arange(mine.size(1), device=mine.device)
    pairs = mine.unsqueeze(2) & mine.unsqueeze(1) & (order.unsqueeze(1) != order)
    # max(0, 1 - |c_j - c_k|)
    near = F.relu(1.0 - (centre.unsqueeze(2) - centre.unsqueeze(1)).abs())
    push = average(keep(near, pairs).sum(2).sum(1), number * (number - 1.0))
    known = legal.flatten(1).all(1)
    return poison(pull, known), poison(push, known)


def padded_matches(match: List[List[List[List[int]]]], like: Tensor) -> Tensor:
    """Lists of corner pairs, one per image, as one tensor padded with pairs of -1."""
    # an empty first image, so that the list is never empty
    images = [torch.zeros([0, 2, 2], dtype=torch.int64, device=like.device)]
    for image in match:
        images.append(torch.tensor(image, dtype=torch.int64, device=like.device).view([len(image), 2, 2]))
    return torch.nn.utils.rnn.pad_sequence(images, batch_first=True, padding_value=-1.0)[1:]


@LOSSES.register_module()
class AssociativeEmbeddingLoss(nn.Module):
    """Grouping of corners (CornerNet): embeddings of one object attract each other, those of two repel.

    Drop-in replacement for ``mmdet.AssociativeEmbeddingLoss`` (same call and numbers).

    It sums :func:`associative_embedding_loss` over the images.

    Args:
        pull_weight: factor of the pull loss.
        push_weight: factor of the push loss.

    Shapes:
        Embeddings of both corners (N, M, H, W). The corner positions are lists, as CornerNet's head passes them:
        ``match[image][object] = [[y, x], [y, x]]``; or a tensor (N, K, 2, 2), padded with -1, which artefacts need.
        Returns two scalars, the pull loss and the push loss. An empty batch, and images without objects, give 0.

    Raises:
        ValueError: shapes do not match.
        IndexError: a position outside the map, in eager mode on the CPU; NaN elsewhere.

    Reference:
        Newell et al., Associative Embedding: End-to-End Learning for Joint Detection and Grouping, NeurIPS 2017.
    """

    spec: ClassVar[LossSpec]

    def __init__(self, pull_weight: float = 0.25, push_weight: float = 0.25) -> None:
        super().__init__()
        self.pull_weight = float(pull_weight)
        self.push_weight = float(push_weight)

    def forward(
        self, pred: Tensor, target: Tensor, match: Union[Tensor, List[List[List[List[int]]]]]
    ) -> Tuple[Tensor, Tensor]:
        """Computes the pull loss and the push loss."""
        places = match if isinstance(match, Tensor) else padded_matches(match, pred)
        pull, push = associative_embedding_loss(pred, target, places)
        return self.pull_weight * pull.sum(), self.push_weight * push.sum()


def _within_the_map(loss: AssociativeEmbeddingLoss, drawn: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """Limits positions to the map; a pair with a -1 becomes padding."""
    match = drawn['match']
    none = (match == -1).flatten(2).any(2).view(*match.shape[:2], 1, 1)
    limits = torch.tensor(drawn['pred'].shape[2:])
    return {'match': torch.where(none, -1, torch.minimum(match, limits - 1))}


AssociativeEmbeddingLoss.spec = LossSpec(
    functions=(associative_embedding_loss,),
    calls=(
        Call(
            'corners',
            (
                Input('pred', Role.FEATURES, 'N M H W', differentiable=True),
                Input('target', Role.FEATURES, 'N M H W', differentiable=True),
                Input('match', Role.LABELS, 'N K 2 2', classes='H', ignore=lambda loss: -1),
            ),
            outputs=('loss_pull', 'loss_push'),
            consistent=_within_the_map,
        ),
    ),
    variants={
        'default': {},
        'centripetal': {'pull_weight': 0.1, 'push_weight': 0.1},
        'push': {'pull_weight': 0.0, 'push_weight': 2.0},
    },
    references=('https://arxiv.org/abs/1611.05424', 'https://arxiv.org/abs/1808.01244'),
    stands_in_for=(HostClass('mmdet.AssociativeEmbeddingLoss'),),
    differences=(
        Difference(
            'mmdet.AssociativeEmbeddingLoss',
            'a negative place is an error (NaN in artefacts); mmdet counts from the far side of the map',
            'contract 4: places lie in the map',
            'tests/openmmlab/test_mmdet.py',
        ),
        Difference(
            'mmdet.AssociativeEmbeddingLoss',
            'an empty batch gives two tensors of 0; mmdet gives two numbers',
            'the result is differentiable for any batch size',
            'tests/openmmlab/test_mmdet.py',
        ),
    ),
)
