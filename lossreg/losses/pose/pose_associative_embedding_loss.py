"""Associative embedding loss, called as in mmpose."""

from collections.abc import Mapping
from typing import Any, ClassVar, List, Tuple, Union

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from lossreg.arith import (
    check_at_least,
    check_dim,
    check_labels,
    check_leading_shape,
    check_multiple_size,
    check_size,
    indices,
    keep,
    poison,
    upcast,
)
from lossreg.ops.reductions import average
from lossreg.registry import LOSSES
from lossreg.spec import Call, Difference, HostClass, Input, LossSpec, Role


def pose_associative_embedding_loss(tags: Tensor, keypoint_indices: Tensor) -> Tuple[Tensor, Tensor]:
    r"""Distance of an instance's tags from their mean (pull), and closeness of the means of instances (push).

    .. math::
        \mathrm{pull} = \frac{1}{M + \epsilon} \sum_n \frac{1}{L |V_n|} \sum_{k \in V_n} \lVert h_{nk} - m_n \rVert^2,
        \qquad
        \mathrm{push} = \frac{1}{M (M - 1) + \epsilon} \sum_{i, j} \sum_l e^{-(m_{il} - m_{jl})^2}

    :math:`h_{nk}` is the tag of keypoint k of instance n: the L numbers of its maps at its place. :math:`V_n` are the
    visible keypoints of n, :math:`m_n` is their mean tag, M the number of instances with a visible keypoint, and
    :math:`\epsilon` is 1e-6. The second sum is over these instances, i = j included; it is 0 if there is only one.

    Args:
        tags: (B, L * K, H, W): the maps of all keypoints for the first of the L numbers, then for the next.
        keypoint_indices: place, from 0 to H * W - 1, and whether visible, (B, N, K, 2). Where not visible, the place
            does not matter.

    Returns:
        pull and push of each picture, (B) both.

    Raises:
        ValueError: shapes do not match.
        IndexError: a place out of range (eager on the CPU; elsewhere that picture's losses are NaN).
    """
    check_dim(tags, 4, 'tags')
    check_dim(keypoint_indices, 4, 'keypoint_indices')
    check_leading_shape(keypoint_indices, tags, 1, 'keypoint_indices', 'tags')
    check_size(keypoint_indices, 3, 2, 'keypoint_indices', 'numbers')
    check_at_least(keypoint_indices, 2, 1, 'keypoint_indices', 'an instance with keypoints')
    keypoint_indices = indices(keypoint_indices, 'keypoint_indices')
    keypoints = keypoint_indices.size(2)
    check_multiple_size(tags, 1, keypoints, 'tags', 'keypoints of keypoint_indices')
    # (B, K, N)
    place, visible = keypoint_indices.transpose(1, 2).unbind(-1)
    seen = visible != 0
    # zeros shaped by the batch, not a number, so that a traced graph knows both batches are equal
    none = torch.zeros([tags.size(0), 1, 1], dtype=place.dtype, device=place.device)
    place = torch.where(seen, place, none)
    maps = upcast(tags).flatten(2)
    legal = check_labels(place, maps.size(2), None, 'keypoint_indices')
    maps = maps.unflatten(1, [-1, keypoints])  # type: ignore[no-untyped-call]
    index = torch.where(legal, place, 0).unsqueeze(1).expand(-1, maps.size(1), -1, -1)
    seen = seen.unsqueeze(1)
    # tags of each picture, number, keypoint and instance, (B, L, K, N)
    h = keep(maps.gather(3, index), seen)
    count = seen.sum(2).to(h.dtype)
    mean = average(h.sum(2), count)
    deviation = keep(h - mean.unsqueeze(2), seen)
    squared = average((deviation * deviation).sum(2), count).mean(1)
    is_there = (count > 0).squeeze(1)
    instances = is_there.sum(1).to(h.dtype)
    pull = squared.sum(1) / (instances + 1e-6)
    difference = mean.unsqueeze(2) - mean.unsqueeze(3)
    pairs = (is_there.unsqueeze(1) & is_there.unsqueeze(2) & (instances > 1).view(-1, 1, 1)).unsqueeze(1)
    near = torch.where(pairs, torch.exp(-difference * difference), 0.0)
    push = near.sum(-1).sum(-1).sum(-1) / (instances * (instances - 1.0) + 1e-6)
    all_legal = legal.flatten(1).all(1)
    return poison(pull, all_legal), poison(push, all_legal)


@LOSSES.register_module()
class PoseAssociativeEmbeddingLoss(nn.Module):
    """Grouping of keypoints: tags of one person attract each other, tags of different persons repel.

    Drop-in replacement for ``mmpose.AssociativeEmbeddingLoss`` (same call and numbers): the sums over the batch of pull
    and push.

    See :func:`pose_associative_embedding_loss` for the formula. mmdet's AssociativeEmbeddingLoss is a different loss:
    it pairs corners. Artefacts take one number for each keypoint's tag (L = 1), as in all of mmpose's configs, and
    places as one tensor.

    Args:
        loss_weight: factor of both results.
        push_loss_factor: further factor of the push loss.

    Shapes:
        Tags (B, L * K, H, W); places and visibilities (B, N, K, 2), or a list of B tensors (N_i, K, 2). Returns two
        scalars, 0 where no keypoint is visible.

    Raises:
        ValueError: shapes do not match.
        IndexError: a place out of range, in eager mode on the CPU; NaN elsewhere.

    Reference:
        Newell et al., Associative Embedding: End-to-End Learning for Joint Detection and Grouping, NIPS 2017.
    """

    spec: ClassVar[LossSpec]

    def __init__(self, loss_weight: float = 1.0, push_loss_factor: float = 0.5) -> None:
        super().__init__()
        self.loss_weight = float(loss_weight)
        self.push_loss_factor = float(push_loss_factor)

    def forward(self, tags: Tensor, keypoint_indices: Union[Tensor, List[Tensor]]) -> Tuple[Tensor, Tensor]:
        """Computes the pull and the push loss."""
        if isinstance(keypoint_indices, Tensor):
            places = keypoint_indices
        else:
            # padded keypoints are not visible
            places = pad_sequence(keypoint_indices, batch_first=True)
        pull, push = pose_associative_embedding_loss(tags, places)
        return self.loss_weight * pull.sum(), self.loss_weight * self.push_loss_factor * push.sum()


def _visible_or_not(loss: Any, drawn: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """The second number of each keypoint is 0 or 1; the first keypoint is visible."""
    place, visible = drawn['keypoint_indices'].unbind(-1)
    first = torch.arange(visible.numel()).view(visible.shape) == 0
    return {'keypoint_indices': torch.stack([place, (visible % 2).masked_fill(first, 1)], -1)}


PoseAssociativeEmbeddingLoss.spec = LossSpec(
    functions=(pose_associative_embedding_loss,),
    calls=(
        Call(
            'keypoints',
            (
                Input('tags', Role.LOGITS, 'B K H W', differentiable=True),
                Input('keypoint_indices', Role.LABELS, 'B N K 2', classes='H W', broadcasts=('K',)),
            ),
            outputs=('pull_loss', 'push_loss'),
            consistent=_visible_or_not,
        ),
    ),
    variants={
        'default': {},
        'ae': {'loss_weight': 0.001},
        'push': {'loss_weight': 2.0, 'push_loss_factor': 1.5},
    },
    references=('https://arxiv.org/abs/1611.05424',),
    stands_in_for=(HostClass('mmpose.AssociativeEmbeddingLoss'),),
    differences=(
        Difference(
            'mmpose.AssociativeEmbeddingLoss',
            'a negative place of a visible keypoint is an error (NaN in artefacts); mmpose counts from the end of '
            'the map',
            'contract 4: places go from 0 to H * W - 1',
            'tests/openmmlab/test_mmpose_other.py',
        ),
    ),
)
