"""Mean squared error of keypoint heatmaps."""

from typing import ClassVar, Optional

from torch import Tensor, nn

from lossreg.arith import check_same_shape, upcast
from lossreg.ops.keypoints import heatmap_weight
from lossreg.ops.pairs import weighted_squares
from lossreg.ops.reductions import reduce_loss
from lossreg.registry import LOSSES
from lossreg.spec import HostClass, Input, LossSpec, Role
from lossreg.spec_parts.differences import nan_without_weight, no_broadcast
from lossreg.spec_parts.pose import (
    TEST_OF_DIFFERENCES,
    heatmap_call,
    masked_heatmap_calls,
    narrow_masks,
    with_empty_channels,
)


def keypoint_mse_loss(
    output: Tensor,
    target: Tensor,
    target_weights: Optional[Tensor] = None,
    mask: Optional[Tensor] = None,
    skip_empty_channel: bool = False,
) -> Tensor:
    r"""Squared error of each pixel, weighted.

    .. math::
        \ell_{nkp} = w_{nkp}\,(x_{nkp} - t_{nkp})^2

    with w of :func:`~lossreg.ops.keypoints.heatmap_weight`.

    Args:
        output: heatmaps x, (N, K, H, W), or with more dimensions after K.
        target: heatmaps t, of the same shape.
        target_weights: (N, K), or (N, K, H, W). Where w is 0, NaN in ``output`` and ``target`` does not count.
        mask: (N, 1, H, W) or (N, K, H, W), multiplied into w.
        skip_empty_channel: whether to ignore channels whose target is 0 everywhere.

    Returns:
        The losses, of the shape of ``output``.

    Raises:
        ValueError: shapes do not match.
    """
    check_same_shape(target, output, 'target', 'output')
    weight = heatmap_weight(target, target_weights, mask, skip_empty_channel)
    # w (x - t)^2
    return weighted_squares(upcast(output), upcast(target), weight)


@LOSSES.register_module()
class KeypointMSELoss(nn.Module):
    """Heatmaps of keypoints: squared error.

    Drop-in replacement for ``mmpose.KeypointMSELoss`` (same call and numbers); see :func:`keypoint_mse_loss` for the
    formula.

    Args:
        use_target_weight: changes nothing, as in mmpose: weights count where they are given.
        skip_empty_channel: whether to ignore channels whose target is 0 everywhere, those of absent keypoints.
        loss_weight: factor of the result.

    Shapes:
        Heatmaps (N, K, H, W), or (N, K, D, H, W) as InternetHead returns them; ``target_weights`` (N, K) or of the
        shape of the heatmaps; ``mask`` (N, 1, H, W), or of that shape. Returns a scalar: the mean over all elements,
        those of weight 0 included. An empty batch, or all weights 0, gives 0.

    Raises:
        ValueError: shapes do not match.

    Reference:
        Xiao et al., Simple Baselines for Human Pose Estimation and Tracking, ECCV 2018.
    """

    spec: ClassVar[LossSpec]

    def __init__(
        self, use_target_weight: bool = False, skip_empty_channel: bool = False, loss_weight: float = 1.0
    ) -> None:
        super().__init__()
        self.use_target_weight = use_target_weight
        self.skip_empty_channel = skip_empty_channel
        self.loss_weight = float(loss_weight)

    def forward(
        self,
        output: Tensor,
        target: Tensor,
        target_weights: Optional[Tensor] = None,
        mask: Optional[Tensor] = None,
    ) -> Tensor:
        """Computes the loss."""
        loss = keypoint_mse_loss(output, target, target_weights, mask, self.skip_empty_channel)
        return self.loss_weight * reduce_loss(loss, 'mean', None)


KeypointMSELoss.spec = LossSpec(
    functions=(keypoint_mse_loss,),
    calls=(
        *masked_heatmap_calls(Role.LOGITS),
        heatmap_call(
            'volumes',
            Input('target_weights', Role.WEIGHTS, 'N K', optional=True),
            shape='N K D H W',
            consistent=with_empty_channels,
        ),
    ),
    variants={
        'default': {},
        'weighted': {'use_target_weight': True, 'loss_weight': 0.25},
        'skip_empty': {'skip_empty_channel': True},
    },
    references=('https://arxiv.org/abs/1804.06208',),
    stands_in_for=(HostClass('mmpose.KeypointMSELoss'),),
    differences=(
        nan_without_weight('mmpose.KeypointMSELoss', TEST_OF_DIFFERENCES),
        narrow_masks('mmpose.KeypointMSELoss'),
        no_broadcast('mmpose.KeypointMSELoss', TEST_OF_DIFFERENCES),
    ),
)
