"""Mean squared error of the hardest keypoints' heatmaps (online hard keypoint mining)."""

from typing import ClassVar, Optional

import torch
from torch import Tensor, nn

from lossreg.arith import check_at_least, check_dim, check_same_shape, keep, upcast
from lossreg.ops.reductions import average, average_over, total
from lossreg.ops.weights import weight_if_used, weight_of_leading
from lossreg.registry import LOSSES
from lossreg.spec import HostClass, LossSpec
from lossreg.spec_parts.differences import nan_without_weight, no_broadcast
from lossreg.spec_parts.pose import TEST_OF_DIFFERENCES, WEIGHT_OF_KEYPOINTS, heatmap_call


def keypoint_ohkm_mse_loss(
    output: Tensor, target: Tensor, target_weights: Optional[Tensor] = None, topk: int = 8
) -> Tensor:
    r"""Mean squared error of the heatmaps of each sample's ``topk`` hardest keypoints.

    .. math::
        \ell_{nk} = \frac{1}{HW} \sum_p \left(w_{nk}\,(x_{nkp} - t_{nkp})\right)^2

    Args:
        output: heatmaps x, (N, K, H, W).
        target: heatmaps t, of the same shape.
        target_weights: w, (N, K). Where it is 0, NaN in ``output`` and ``target`` does not count.
        topk: how many keypoints of a sample count, at most K.

    Returns:
        The largest losses of each sample, (N, topk). A loss that is NaN is among them.

    Raises:
        ValueError: shapes do not match, or there are fewer keypoints than ``topk``.
    """
    check_dim(output, 4, 'output')
    check_same_shape(target, output, 'target', 'output')
    check_at_least(output, 1, topk, 'output', 'topk')
    error = upcast(output) - upcast(target)
    if target_weights is not None:
        check_dim(target_weights, 2, 'target_weights')
        weight = upcast(weight_of_leading(target_weights, output, 'target_weights', 'output'))
        error = keep(error, weight != 0) * weight
    # mean over both dimensions, the last one first, and 0 for a heatmap without pixels
    squared = (error * error).sum(-1).sum(-1)
    loss = average(squared, torch.zeros_like(squared) + output.size(2) * output.size(3))
    # runtimes disagree on where NaN ranks
    rank = torch.where(torch.isnan(loss), torch.inf, loss).detach()
    return loss.gather(1, rank.topk(topk, 1)[1])


@LOSSES.register_module()
class KeypointOHKMMSELoss(nn.Module):
    """Heatmaps of the hardest keypoints (online hard keypoint mining): squared error.

    Drop-in replacement for ``mmpose.KeypointOHKMMSELoss`` (same call and numbers); see :func:`keypoint_ohkm_mse_loss`.

    Args:
        use_target_weight: whether ``target_weights`` count; they are required then, and ignored otherwise.
        topk: how many keypoints of each sample count: those with the largest losses.
        loss_weight: factor of the result.

    Shapes:
        Heatmaps (N, K, H, W) with K >= ``topk``; ``target_weights`` (N, K). Returns a scalar: the mean over the
        samples and their hardest keypoints. An empty batch, or all weights 0, gives 0.

    Raises:
        ValueError: ``topk`` is not above 0, shapes do not match, fewer keypoints than ``topk``, or ``target_weights``
            are missing.

    Reference:
        Chen et al., Cascaded Pyramid Network for Multi-Person Pose Estimation, CVPR 2018.
    """

    spec: ClassVar[LossSpec]

    def __init__(self, use_target_weight: bool = False, topk: int = 8, loss_weight: float = 1.0) -> None:
        super().__init__()
        if topk <= 0:
            raise ValueError(f'topk must be above 0, got {topk}')
        self.use_target_weight = use_target_weight
        self.topk = topk
        self.loss_weight = float(loss_weight)

    def forward(self, output: Tensor, target: Tensor, target_weights: Optional[Tensor] = None) -> Tensor:
        """Computes the loss."""
        weights = weight_if_used(target_weights, self.use_target_weight, 'target_weights')
        loss = keypoint_ohkm_mse_loss(output, target, weights, self.topk)
        return self.loss_weight * average_over(total(loss), loss.numel())


KeypointOHKMMSELoss.spec = LossSpec(
    functions=(keypoint_ohkm_mse_loss,),
    calls=(heatmap_call('heatmaps', WEIGHT_OF_KEYPOINTS),),
    variants={
        'default': {},
        'weighted': {'use_target_weight': True, 'loss_weight': 0.5},
        'hardest': {'use_target_weight': True, 'topk': 1},
        'few': {'topk': 3},
    },
    at_least=lambda loss: {'K': loss.topk},
    references=('https://arxiv.org/abs/1711.07319',),
    stands_in_for=(HostClass('mmpose.KeypointOHKMMSELoss'),),
    differences=(
        nan_without_weight('mmpose.KeypointOHKMMSELoss', TEST_OF_DIFFERENCES),
        no_broadcast('mmpose.KeypointOHKMMSELoss', TEST_OF_DIFFERENCES),
    ),
)
