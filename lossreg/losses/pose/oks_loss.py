"""Object keypoint similarity (OKS) loss, called as in mmpose."""

from typing import ClassVar, Optional

import torch
from torch import Tensor, nn

from lossreg.arith import check_at_least, check_dim, check_leading_shape, check_same_shape, one_minus_exp, upcast
from lossreg.metainfo import Metainfo, read_sigmas
from lossreg.ops.boxes import check_iou_mode
from lossreg.ops.keypoints import check_sigmas, squared_distances_in_sigmas
from lossreg.ops.reductions import reduce_loss
from lossreg.options import check_reduction
from lossreg.registry import LOSSES
from lossreg.spec import Call, Difference, HostClass, Input, LossSpec, Role
from lossreg.spec_parts.differences import nan_without_weight
from lossreg.spec_parts.pose import sigma_sizes


def oks_loss(
    output: Tensor,
    target: Tensor,
    target_weight: Optional[Tensor] = None,
    areas: Optional[Tensor] = None,
    sigmas: Optional[Tensor] = None,
    mode: str = 'linear',
    eps: float = 1e-8,
    norm_target_weight: bool = False,
) -> Tensor:
    r"""Loss of each instance's object keypoint similarity s.

    .. math::
        \ell_n = 1 - s_n, \qquad 1 - s_n^2 \qquad\text{or}\qquad -\log s_n, \qquad
        s_n = \frac{1}{D_n} \sum_k w_{nk}\, e^{-d_{nk}^2 / 2}, \qquad
        d_{nk} = \frac{\lVert x_{nk} - t_{nk} \rVert}{2 \sigma_k \max(\sqrt{a_n}, \epsilon)}

    with D = K, or :math:`D_n = \max(\sum_k w_{nk}, \epsilon)` with ``norm_target_weight``; without weights, all weights
    and D are 1. :math:`2 \sigma_k` and :math:`a_n` are left out where they are not given.

    An instance without a weight above 0 has s = 0: its loss is 1 with gradient 0, or, with the logarithm, 0.

    Args:
        output: keypoints x, (N, K, 2).
        target: keypoints t, (N, K, 2).
        target_weight: w, (N, K). Where it is 0, NaN does not count.
        areas: a, (N). A negative one gives NaN.
        sigmas: the usual error of each keypoint, (K).
        mode: ``linear``, ``square`` or ``log``: which of the three losses.
        eps: smallest root of an area, and smallest sum of weights.
        norm_target_weight: see above.

    Returns:
        (N).

    Raises:
        ValueError: shapes do not match, unknown ``mode``.
    """
    check_iou_mode(mode)
    check_dim(output, 3, 'output')
    check_same_shape(target, output, 'target', 'output')
    check_at_least(output, 1, 1, 'output', 'the similarity of keypoints')
    x, t = upcast(output), upcast(target)
    check_sigmas(output, sigmas)
    weight = torch.ones_like(x[:, :, 0])
    if target_weight is not None:
        check_dim(target_weight, 2, 'target_weight')
        check_leading_shape(target_weight, output, 2, 'target_weight', 'output')
        weight = upcast(target_weight)
    counted = weight != 0
    whole = weight.sum(-1)
    divisor = torch.ones_like(whole)
    if target_weight is not None:
        divisor = whole.clamp(min=eps) if norm_target_weight else divisor * output.size(1)
    squared = squared_distances_in_sigmas(x, t, counted, sigmas, 2.0)
    if areas is not None:
        check_dim(areas, 1, 'areas')
        check_leading_shape(areas, output, 1, 'areas', 'output')
        root = torch.where(counted, upcast(areas).unsqueeze(-1), 1.0).sqrt()
        root = torch.where(root < eps, eps, root)
        squared = squared / (root * root)
    half = 0.5 * squared
    if mode == 'log':
        return _negative_log(half, weight, counted, divisor)
    if target_weight is None:
        loss = 1.0 - torch.exp(-half).sum(-1)
    else:
        # 1 - s = (D - sum of w + sum of w (1 - exp(-d^2 / 2))) / D, where little cancels
        loss = (divisor - whole + (weight * one_minus_exp(half)).sum(-1)) / divisor
    # 1 - s^2 = (1 - s) (1 + s)
    return loss if mode == 'linear' else loss * (2.0 - loss)


def _negative_log(half: Tensor, weight: Tensor, counted: Tensor, divisor: Tensor) -> Tensor:
    """-log (sum of w exp(-h) / D), 0 where nothing counts; exact even if every exponential underflows in float32."""
    # the result does not depend on the smallest h, which therefore needs no gradient
    least = torch.where(counted, half.detach(), torch.inf).amin(-1, keepdim=True)
    least = torch.where(least == torch.inf, 0.0, least)
    shifted = torch.where(counted, least - half, 0.0)
    similarity = (weight * torch.exp(shifted)).sum(-1) / divisor
    return least.squeeze(-1) - torch.log(torch.where(counted.any(-1), similarity, 1.0))


@LOSSES.register_module()
class OKSLoss(nn.Module):
    """Regression of keypoints: object keypoint similarity, as in mmpose's RTMO.

    Drop-in replacement for ``mmpose.OKSLoss`` (same call and numbers); see :func:`oks_loss` for the formula.

    Args:
        metainfo: where the sigmas come from: the path of a data set's metainfo file, as in mmpose's configs,
            ``dict(sigmas=[...])``, or a list of them. Without it distances are not divided by sigmas.
        reduction: ``none``, ``mean`` (over instances) or ``sum``.
        mode: ``linear``, ``square`` or ``log``.
        eps: smallest root of an area, and smallest sum of weights.
        norm_target_weight: whether weights are divided by their sum, not by K.
        loss_weight: factor of the result.

    Shapes:
        Keypoints (N, K, 2), weights (N, K), areas (N). Returns a scalar, or (N) with reduction ``none``. An empty batch
        gives 0. An instance without weight has the constant loss 1, as in mmpose; with ``mode='log'`` it has 0. Without
        weights the similarity is a sum over the keypoints, as in mmpose.

    Raises:
        ValueError: unknown ``reduction`` or ``mode``, no sigmas in ``metainfo``, shapes do not match.

    Reference:
        Maji et al., YOLO-Pose: Enhancing YOLO for Multi Person Pose Estimation Using Object Keypoint Similarity Loss,
        CVPR Workshops 2022.
    """

    spec: ClassVar[LossSpec]
    sigmas: Optional[Tensor]

    def __init__(
        self,
        metainfo: Optional[Metainfo] = None,
        reduction: str = 'mean',
        mode: str = 'linear',
        eps: float = 1e-8,
        norm_target_weight: bool = False,
        loss_weight: float = 1.0,
    ) -> None:
        super().__init__()
        check_reduction(reduction)
        check_iou_mode(mode)
        self.metainfo = metainfo
        self.reduction = reduction
        self.mode = mode
        self.eps = float(eps)
        self.norm_target_weight = norm_target_weight
        self.loss_weight = float(loss_weight)
        self.register_buffer('sigmas', read_sigmas(metainfo))

    def forward(
        self,
        output: Tensor,
        target: Tensor,
        target_weight: Optional[Tensor] = None,
        areas: Optional[Tensor] = None,
    ) -> Tensor:
        """Computes the loss."""
        loss = oks_loss(output, target, target_weight, areas, self.sigmas, self.mode, self.eps, self.norm_target_weight)
        return self.loss_weight * reduce_loss(loss, self.reduction, None)


OKSLoss.spec = LossSpec(
    functions=(oks_loss,),
    calls=(
        Call(
            'keypoints',
            (
                Input('output', Role.LOGITS, 'N K 2', differentiable=True),
                Input('target', Role.LOGITS, 'N K 2'),
                Input('target_weight', Role.WEIGHTS, 'N K', optional=True),
                Input('areas', Role.POSITIVE, 'N', optional=True),
            ),
            is_sum=True,
        ),
    ),
    variants={
        'default': {},
        'sigmas': {'metainfo': {'sigmas': [0.5, 1.0, 0.25, 2.0, 0.75]}, 'reduction': 'none', 'loss_weight': 30.0},
        'yoloxpose': {
            'metainfo': [0.5, 1.0, 0.25, 2.0, 0.75, 1.5],
            'reduction': 'none',
            'norm_target_weight': True,
            'loss_weight': 30.0,
        },
        'square': {'mode': 'square', 'reduction': 'sum', 'norm_target_weight': True},
        'log': {'mode': 'log', 'eps': 1e-6},
        'log_none': {'mode': 'log', 'reduction': 'none', 'norm_target_weight': True},
    },
    references=('https://arxiv.org/abs/2204.06806',),
    sizes=sigma_sizes,
    constants=('sigmas',),
    stands_in_for=(HostClass('mmpose.OKSLoss'),),
    differences=(
        nan_without_weight('mmpose.OKSLoss', 'tests/openmmlab/test_mmpose_other.py'),
        Difference(
            'mmpose.OKSLoss',
            "mode='log' where every exponential underflows: the exact logarithm; the host returns infinity, also for "
            'an instance without weight, which contributes 0 here',
            'contract 6, and contract 2: nothing to average over gives 0',
            'tests/openmmlab/test_mmpose_other.py',
        ),
    ),
)
