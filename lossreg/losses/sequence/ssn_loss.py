"""The losses of structured segment networks: activity, completeness and location of proposals."""

from collections.abc import Mapping
from typing import ClassVar, Dict, Optional, Tuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lossreg.arith import (
    check_at_least,
    check_dim,
    check_labels,
    check_leading_shape,
    check_size,
    indices,
    keep,
    poison,
    upcast,
)
from lossreg.ops.cross_entropy import reduce_by_share, torch_label_losses
from lossreg.ops.reductions import average, total
from lossreg.registry import LOSSES
from lossreg.spec import Call, Difference, HostClass, Input, LossSpec, Role


def activity_loss(activity_score: Tensor, proposal_type: Tensor, labels: Tensor) -> Tensor:
    r"""Mean cross-entropy of the proposals that are positive or background.

    Args:
        activity_score: logits of the background and of each class, (N, A).
        proposal_type: 0 for positive, 1 for incomplete and 2 for background proposals, (N).
        labels: integers in [0, A) for proposals that count, (N).

    Returns:
        A scalar; 0 where nothing counts.

    Raises:
        ValueError: shapes do not match.
        IndexError: a type or label out of range (eager on the CPU; elsewhere NaN).
    """
    proposal_type, labels = indices(proposal_type, 'proposal_type'), indices(labels, 'labels')
    legal = check_labels(proposal_type, 3, None, 'proposal_type')
    index = torch.where(proposal_type == 1, -100, labels)
    loss, share = torch_label_losses(activity_score, index, None, -100, 0.0, False, 'activity_score', 'labels')
    return reduce_by_share(poison(loss, legal), share, 'mean')


def completeness_loss(
    completeness_score: Tensor,
    proposal_type: Tensor,
    labels: Tensor,
    positive_per_video: int,
    incomplete_per_video: int,
) -> Tensor:
    r"""Hinge loss of positive proposals, and of the hardest incomplete ones of each video.

    .. math::
        \ell = \frac{\sum_v \left(\sum_{i \in P_v} \max(0, 1 - s_i) + \sum_{i \in H_v} \max(0, 1 + s_i)\right)}
        {V p + \lfloor V q \cdot p / q \rfloor}

    with s the score of the proposal's class. The proposals that are not background come video by video: p positive
    ones, then q incomplete ones; H holds those of the latter with the largest losses, about as many as P has.

    Args:
        completeness_score: one score per class, without background, (N, C).
        proposal_type: 0 for positive, 1 for incomplete and 2 for background proposals, (N).
        labels: integers in [1, C] for proposals that count, (N).
        positive_per_video: p.
        incomplete_per_video: q.

    Returns:
        A scalar; 0 where nothing counts. NaN where the proposals that are not background do not make up whole videos.

    Raises:
        ValueError: shapes do not match.
        IndexError: a type or label out of range (eager on the CPU; elsewhere NaN).
    """
    check_dim(completeness_score, 2, 'completeness_score')
    check_leading_shape(labels, completeness_score, 1, 'labels', 'completeness_score')
    proposal_type, labels = indices(proposal_type, 'proposal_type'), indices(labels, 'labels')
    legal = check_labels(proposal_type, 3, None, 'proposal_type')
    counted = proposal_type != 2
    index, legal_label = _class_index(labels, counted, completeness_score.size(1))
    legal = legal & legal_label
    score = keep(upcast(completeness_score), counted.unsqueeze(1)).gather(1, index.unsqueeze(1)).squeeze(1)
    # the position among the counted proposals, in whole videos
    per_video = positive_per_video + incomplete_per_video
    place = counted.to(torch.int64).cumsum(0) - 1
    video = torch.div(place, per_video, rounding_mode='floor')
    is_positive = counted & (place - video * per_video < positive_per_video)
    is_incomplete = counted & ~is_positive
    loss = F.relu(1.0 + torch.where(is_positive, -score, score))
    # how many of the same video are harder
    value = loss.detach()
    order = torch.arange(labels.size(0), device=labels.device)
    other, own = value.unsqueeze(0), value.unsqueeze(1)
    harder = (other > own) | ((other == own) & (order < order.unsqueeze(1)))
    rivals = is_incomplete.unsqueeze(0) & (video.unsqueeze(0) == video.unsqueeze(1))
    # rounded as in mmaction
    ratio = positive_per_video / incomplete_per_video
    hardest = (harder & rivals).sum(1) < int(incomplete_per_video * ratio)
    loss = torch.where(is_positive | (is_incomplete & hardest), loss, 0.0)
    count = counted.to(torch.int64).sum()
    videos = torch.div(count, per_video, rounding_mode='floor')
    kept = videos * positive_per_video + ((videos * incomplete_per_video).double() * ratio).floor()
    whole = videos * per_video == count
    return average(total(poison(poison(loss, legal), whole)), kept.to(loss.dtype))


def location_loss(bbox_pred: Tensor, proposal_type: Tensor, labels: Tensor, bbox_targets: Tensor) -> Tensor:
    r"""Smooth L1 loss of the centre and the span of positive proposals, as predicted for their class.

    Args:
        bbox_pred: one centre and one span per class, without background, (N, C, 2).
        proposal_type: 0 for positive proposals, else 1 or 2, (N).
        labels: integers in [1, C] for positive proposals, (N).
        bbox_targets: (N, 2).

    Returns:
        The sum over both numbers, averaged over positive proposals; 0 without any.

    Raises:
        ValueError: shapes do not match.
        IndexError: a type or label out of range (eager on the CPU; elsewhere NaN).
    """
    check_dim(bbox_pred, 3, 'bbox_pred')
    check_size(bbox_pred, 2, 2, 'bbox_pred', 'numbers of a location')
    check_leading_shape(labels, bbox_pred, 1, 'labels', 'bbox_pred')
    check_leading_shape(bbox_targets, bbox_pred, 1, 'bbox_targets', 'bbox_pred')
    proposal_type, labels = indices(proposal_type, 'proposal_type'), indices(labels, 'labels')
    legal = check_labels(proposal_type, 3, None, 'proposal_type')
    counted = proposal_type == 0
    index, legal_label = _class_index(labels, counted, bbox_pred.size(1))
    pred = keep(upcast(bbox_pred), counted.view(-1, 1, 1)).gather(1, index.view(-1, 1, 1).expand(-1, 1, 2)).squeeze(1)
    target = keep(upcast(bbox_targets), counted.unsqueeze(1))
    loss = F.smooth_l1_loss(pred, target, reduction='none').sum(1)
    return average(total(poison(loss, legal & legal_label)), total(counted.to(loss.dtype)))


def _class_index(labels: Tensor, counted: Tensor, classes: int) -> Tuple[Tensor, Tensor]:
    """Columns of the proposals' classes (labels start at 1; 0 if not counted), and which labels are legal."""
    index = torch.where(counted, labels - 1, 0)
    legal = check_labels(index, classes, None, 'labels - 1')
    return torch.where(legal, index, 0), legal


@LOSSES.register_module()
class SSNLoss(nn.Module):
    """Temporal proposals (structured segment networks): activity, completeness and location.

    Drop-in replacement for ``mmaction.SSNLoss`` (same call and numbers).

    See :func:`activity_loss`, :func:`completeness_loss` and :func:`location_loss` for the formulas. The constructor
    takes the options that mmaction takes as ``train_cfg`` in ``forward``, so that an artefact can hold them. Their
    defaults are those of the paper.

    Args:
        num_per_video: how many proposals are sampled from a video.
        positive_ratio: share of the positive ones.
        background_ratio: share of the background.
        incomplete_ratio: share of the incomplete ones, which also get the rest from rounding.
        comp_loss_weight: weight of the completeness loss.
        reg_loss_weight: weight of the location loss.

    Shapes:
        Activity scores (N, C + 1), completeness scores (N, C), locations (N, C, 2) or None; types and labels of (N)
        elements and location targets of (N, 2), in any shape. Returns a dict: ``loss_activity``, a scalar,
        ``loss_completeness``, (1,), and, with locations, ``loss_reg``, a scalar. Each is 0 where none of its elements
        count.

    Raises:
        ValueError: shapes do not match, no positive or no incomplete proposals in a video.
        IndexError: a type or label out of range, in eager mode on the CPU; NaN elsewhere.

    Reference:
        Zhao et al., Temporal Action Detection with Structured Segment Networks, ICCV 2017.
    """

    spec: ClassVar[LossSpec]

    def __init__(
        self,
        num_per_video: int = 8,
        positive_ratio: float = 1.0,
        background_ratio: float = 1.0,
        incomplete_ratio: float = 6.0,
        comp_loss_weight: float = 0.1,
        reg_loss_weight: float = 0.1,
    ) -> None:
        super().__init__()
        self.num_per_video = num_per_video
        self.positive_ratio = float(positive_ratio)
        self.background_ratio = float(background_ratio)
        self.incomplete_ratio = float(incomplete_ratio)
        self.comp_loss_weight = float(comp_loss_weight)
        self.reg_loss_weight = float(reg_loss_weight)
        per_video(num_per_video, self.positive_ratio, self.background_ratio, self.incomplete_ratio)

    def forward(
        self,
        activity_score: Tensor,
        completeness_score: Tensor,
        bbox_pred: Optional[Tensor],
        proposal_type: Tensor,
        labels: Tensor,
        bbox_targets: Optional[Tensor],
        train_cfg: Optional[Dict[str, Dict[str, Dict[str, float]]]] = None,
    ) -> Dict[str, Tensor]:
        """Computes the losses; ``train_cfg``, as in mmaction, replaces the constructor's arguments."""
        num, positive_ratio, background_ratio = self.num_per_video, self.positive_ratio, self.background_ratio
        incomplete_ratio = self.incomplete_ratio
        comp_loss_weight, reg_loss_weight = self.comp_loss_weight, self.reg_loss_weight
        if train_cfg is not None:
            sampler, weights = train_cfg['ssn']['sampler'], train_cfg['ssn']['loss_weight']
            num = int(sampler['num_per_video'])
            positive_ratio, background_ratio = sampler['positive_ratio'], sampler['background_ratio']
            incomplete_ratio = sampler['incomplete_ratio']
            comp_loss_weight, reg_loss_weight = weights['comp_loss_weight'], weights['reg_loss_weight']
        positive, incomplete = per_video(num, positive_ratio, background_ratio, incomplete_ratio)
        types, labels = proposal_type.flatten(), labels.flatten()
        check_leading_shape(types, labels, 1, 'proposal_type', 'labels')
        check_at_least(completeness_score, 1, 1, 'completeness_score', 'the choice of a class')
        if bbox_pred is not None:
            check_dim(bbox_pred, 3, 'bbox_pred')
            check_leading_shape(bbox_pred, completeness_score, 2, 'bbox_pred', 'completeness_score')
            # its own shape, but written with the size of the other, so that a traced graph knows both are equal
            bbox_pred = bbox_pred.view(-1, completeness_score.size(1), bbox_pred.size(2))
        losses = {
            'loss_activity': activity_loss(activity_score, types, labels),
            # of shape (1,), as in mmaction
            'loss_completeness': comp_loss_weight
            * completeness_loss(completeness_score, types, labels, positive, incomplete).unsqueeze(0),
        }
        if bbox_pred is not None:
            if bbox_targets is None:
                raise ValueError('bbox_targets is missing; give it, or no bbox_pred')
            location = location_loss(bbox_pred, types, labels, bbox_targets.reshape(-1, 2))
            losses.update({'loss_reg': reg_loss_weight * location})
        return losses


def per_video(
    num_per_video: int, positive_ratio: float, background_ratio: float, incomplete_ratio: float
) -> Tuple[int, int]:
    """The numbers of positive and of incomplete proposals of a video, rounded as in mmaction.

    Raises:
        ValueError: either number is 0.
    """
    ratios = positive_ratio + background_ratio + incomplete_ratio
    positive = int(num_per_video * (positive_ratio / ratios))
    incomplete = num_per_video - positive - int(num_per_video * (background_ratio / ratios))
    if positive < 1 or incomplete < 1:
        raise ValueError(f'a video must have positive and incomplete proposals, got {positive} and {incomplete}')
    return positive, incomplete


def _of_videos(loss: SSNLoss, drawn: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """Types as sampled from whole videos, the rest background; labels that both scores have."""
    positive, incomplete = per_video(
        loss.num_per_video, loss.positive_ratio, loss.background_ratio, loss.incomplete_ratio
    )
    rows = torch.arange(len(drawn['labels']))
    place = rows % loss.num_per_video
    types = (place >= positive).long() + (place >= positive + incomplete).long()
    whole = rows < len(rows) - len(rows) % loss.num_per_video
    classes, *_ = sorted((drawn['activity_score'].shape[1] - 1, drawn['completeness_score'].shape[1]))
    return {'proposal_type': torch.where(whole, types, 2), 'labels': 1 + drawn['labels'] % max(classes, 1)}


SSNLoss.spec = LossSpec(
    functions=(activity_loss, completeness_loss, location_loss),
    calls=(
        Call(
            'proposals',
            (
                Input('activity_score', Role.LOGITS, 'N A', differentiable=True),
                Input('completeness_score', Role.LOGITS, 'N C', differentiable=True),
                Input('bbox_pred', Role.LOGITS, 'N C 2', differentiable=True),
                Input('proposal_type', Role.LABELS, 'N', classes='types'),
                Input('labels', Role.LABELS, 'N', classes='A'),
                Input('bbox_targets', Role.LOGITS, 'N 2'),
            ),
            outputs=('loss_activity', 'loss_completeness', 'loss_reg'),
            returns_dict=True,
            is_sum=True,
            consistent=_of_videos,
        ),
    ),
    variants={
        'default': {},
        'many_positives': {
            'num_per_video': 9,
            'positive_ratio': 3,
            'background_ratio': 1,
            'incomplete_ratio': 5,
            'comp_loss_weight': 2.0,
            'reg_loss_weight': 0.5,
        },
    },
    # the number of types, not a dimension
    sizes=lambda loss: {'types': 3},
    at_least=lambda loss: {'N': 2 * loss.num_per_video, 'A': 2},
    references=('https://arxiv.org/abs/1704.06228',),
    # needs: mmaction requires train_cfg in its forward
    stands_in_for=(HostClass('mmaction.SSNLoss'),),
    differences=(
        Difference(
            'mmaction.SSNLoss',
            'a completeness score that is NaN gives NaN; mmaction counts its loss as 0',
            'contract 3: NaN in a counted element reaches the loss',
            'tests/openmmlab/test_mmaction.py',
        ),
        Difference(
            'mmaction.SSNLoss',
            'a label 0 of a positive or incomplete proposal is an error; mmaction takes it for the last class',
            'contract 4: their labels go from 1 to C',
            'tests/openmmlab/test_mmaction.py',
        ),
    ),
)
