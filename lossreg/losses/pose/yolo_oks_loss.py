"""Object keypoint similarity (OKS) loss, called as in mmyolo."""

from typing import ClassVar, Optional, Tuple

import torch
from torch import Tensor, nn

from lossreg.arith import check_dim, check_leading_shape, check_same_shape, check_size, one_minus_exp, upcast
from lossreg.metainfo import Metainfo, read_sigmas
from lossreg.ops.keypoints import check_sigmas, squared_distances_in_sigmas
from lossreg.registry import LOSSES
from lossreg.spec import Call, HostClass, Input, LossSpec, Role
from lossreg.spec_parts.differences import nan_without_weight
from lossreg.spec_parts.pose import sigma_sizes


def box_keypoint_similarity(
    output: Tensor,
    target: Tensor,
    target_weights: Tensor,
    bboxes: Optional[Tensor] = None,
    sigmas: Optional[Tensor] = None,
) -> Tensor:
    r"""Similarity of keypoints in [0, 1], relative to the diagonal of a box.

    .. math::
        s = \frac{\sum_k w_k\, e^{-d_k^2 / 2}}{\max(\sum_k w_k, 10^{-8})}, \qquad
        d_k = \frac{\lVert x_k - t_k \rVert}{\sigma_k \max(\sqrt{(x_2 - x_1)^2 + (y_2 - y_1)^2}, 10^{-8})}

    :math:`\sigma_k` and the diagonal are left out where they are not given. Shapes broadcast, so that an assigner can
    compare all pairs.

    Args:
        output: keypoints x, (..., K, 2).
        target: keypoints t, (..., K, 2).
        target_weights: w, (..., K). Where it is 0, NaN does not count.
        bboxes: x1, y1, x2, y2, (..., 4).
        sigmas: the usual error of each keypoint, (K).

    Returns:
        (...), 0 where all weights are 0.
    """
    weights, half = _weights_and_distances(output, target, target_weights, bboxes, sigmas)
    # sum of w exp(-d^2 / 2) / sum of w
    return (weights * torch.exp(-half)).sum(-1) / weights.sum(-1).clamp(min=1e-8)


def yolo_oks_loss(
    output: Tensor,
    target: Tensor,
    target_weights: Tensor,
    bboxes: Optional[Tensor] = None,
    sigmas: Optional[Tensor] = None,
) -> Tensor:
    r"""1 - s of each instance; see :func:`box_keypoint_similarity`.

    Args:
        output: keypoints x, (N, K, 2).
        target: keypoints t, (N, K, 2).
        target_weights: w, (N, K). Where it is 0, NaN does not count.
        bboxes: x1, y1, x2, y2, (N, 4).
        sigmas: the usual error of each keypoint, (K).

    Returns:
        (N), 1 where all weights are 0.

    Raises:
        ValueError: shapes do not match.
    """
    check_dim(output, 3, 'output')
    check_same_shape(target, output, 'target', 'output')
    check_dim(target_weights, 2, 'target_weights')
    check_leading_shape(target_weights, output, 2, 'target_weights', 'output')
    check_sigmas(output, sigmas)
    if bboxes is not None:
        check_dim(bboxes, 2, 'bboxes')
        check_size(bboxes, 1, 4, 'bboxes', 'box coordinates')
        check_leading_shape(bboxes, output, 1, 'bboxes', 'output')
    weights, half = _weights_and_distances(output, target, target_weights, bboxes, sigmas)
    whole = weights.sum(-1)
    divisor = whole.clamp(min=1e-8)
    # 1 - s = (D - sum of w + sum of w (1 - exp(-d^2 / 2))) / D, where little cancels
    return (divisor - whole + (weights * one_minus_exp(half)).sum(-1)) / divisor


def _weights_and_distances(
    output: Tensor, target: Tensor, target_weights: Tensor, bboxes: Optional[Tensor], sigmas: Optional[Tensor]
) -> Tuple[Tensor, Tensor]:
    """w and d^2 / 2, both 0 where w is 0."""
    weights = upcast(target_weights)
    counted = weights != 0
    squared = squared_distances_in_sigmas(upcast(output), upcast(target), counted, sigmas, 1.0)
    if bboxes is not None:
        x1, y1, x2, y2 = upcast(bboxes).unbind(-1)
        diagonal = (x2 - x1) * (x2 - x1) + (y2 - y1) * (y2 - y1)
        diagonal = torch.where(counted, diagonal.unsqueeze(-1), 1.0)
        squared = squared / torch.where(diagonal < 1e-16, 1e-16, diagonal)
    return weights, 0.5 * squared


@LOSSES.register_module()
class OksLoss(nn.Module):
    """Regression of keypoints: object keypoint similarity, as in mmyolo.

    Drop-in replacement for ``mmyolo.OksLoss`` (same call and numbers): 1 - s of each instance. See
    :func:`box_keypoint_similarity`.

    mmpose's OKSLoss is a different loss: it divides by the root of the area and by 2 sigma, and reduces.

    Args:
        metainfo: where the sigmas come from: the path of a data set's metainfo file, as in mmyolo's configs,
            ``dict(sigmas=[...])``, or a list of them. Without it distances are not divided by sigmas.
        loss_weight: factor of the result.

    Shapes:
        Keypoints (N, K, 2), weights (N, K), boxes (N, 4). Returns (N). An instance without weight has the constant loss
        1, as in mmyolo.

    Raises:
        ValueError: no sigmas in ``metainfo``, shapes do not match.

    Reference:
        Maji et al., YOLO-Pose: Enhancing YOLO for Multi Person Pose Estimation Using Object Keypoint Similarity Loss,
        CVPR Workshops 2022.
    """

    spec: ClassVar[LossSpec]
    sigmas: Optional[Tensor]

    def __init__(self, metainfo: Optional[Metainfo] = None, loss_weight: float = 1.0) -> None:
        super().__init__()
        self.metainfo = metainfo
        self.loss_weight = float(loss_weight)
        self.register_buffer('sigmas', read_sigmas(metainfo))

    def forward(
        self, output: Tensor, target: Tensor, target_weights: Tensor, bboxes: Optional[Tensor] = None
    ) -> Tensor:
        """Computes the loss of each instance."""
        return self.loss_weight * yolo_oks_loss(output, target, target_weights, bboxes, self.sigmas)

    def compute_oks(
        self, output: Tensor, target: Tensor, target_weights: Tensor, bboxes: Optional[Tensor] = None
    ) -> Tensor:
        """Computes the similarity itself, for shapes that broadcast, as mmyolo's assigner needs it."""
        return box_keypoint_similarity(output, target, target_weights, bboxes, self.sigmas)


OksLoss.spec = LossSpec(
    functions=(yolo_oks_loss, box_keypoint_similarity),
    calls=(
        Call(
            'keypoints',
            (
                Input('output', Role.LOGITS, 'N K 2', differentiable=True),
                Input('target', Role.LOGITS, 'N K 2'),
                Input('target_weights', Role.WEIGHTS, 'N K'),
                Input('bboxes', Role.BOXES, 'N 4', optional=True),
            ),
            is_sum=True,
        ),
    ),
    variants={
        'default': {},
        'weighted': {'loss_weight': 30.0},
        'sigmas': {'metainfo': {'sigmas': [0.5, 1.0, 0.05, 0.1, 0.75]}, 'loss_weight': 30.0},
    },
    references=('https://arxiv.org/abs/2204.06806',),
    sizes=sigma_sizes,
    constants=('sigmas',),
    stands_in_for=(HostClass('mmyolo.OksLoss'),),
    differences=(nan_without_weight('mmyolo.OksLoss', 'tests/openmmlab/test_mmyolo.py'),),
)
