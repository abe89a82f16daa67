"""Mean squared error of keypoint heatmaps, and what weighs the pixels of heatmaps."""

from collections.abc import Mapping
from typing import Any, ClassVar, Optional, Tuple

import torch
from torch import Tensor, nn

from lossreg.arith import check_same_shape, check_shape_or_one, keep, upcast
from lossreg.ops.reductions import reduce_loss
from lossreg.ops.weights import weight_of_leading
from lossreg.registry import LOSSES
from lossreg.spec import EMPTY, Call, Difference, HostClass, Input, LossSpec, Role
from lossreg.spec_parts.differences import nan_without_weight, no_broadcast
from lossreg.spec_parts.pose import heatmap_call


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

    with w of :func:`heatmap_weight`.

    Args:
        output: heatmaps x, (N, K, H, W), or with more dimensions after K.
        target: heatmaps t, of the same shape.
        target_weights: (N, K), or (N, K, H, W). Where w is 0, NaN in ``output`` and ``target`` does not count.
        mask: (N, 1, H, W) or (N, K, H, W), the same.
        skip_empty_channel: whether channels whose target is 0 everywhere do not count.

    Returns:
        The losses, of the shape of ``output``.

    Raises:
        ValueError: shapes do not match.
    """
    check_same_shape(target, output, 'target', 'output')
    weight = heatmap_weight(target, target_weights, mask, skip_empty_channel)
    error = upcast(output) - upcast(target)
    if weight is None:
        return error * error
    error = keep(error, weight != 0)
    # w (x - t)^2
    return error * error * weight


def heatmap_weight(
    target: Tensor, target_weights: Optional[Tensor], mask: Optional[Tensor], skip_empty_channel: bool
) -> Optional[Tensor]:
    """The weight of each pixel: that of its keypoint or its own, times its mask, times whether its channel counts.

    Args:
        target: heatmaps, (N, K, H, W), or with more dimensions after K.
        target_weights: (N, K), or of the shape of ``target``.
        mask: of the shape of ``target``, or that with 1 in place of K.
        skip_empty_channel: whether channels whose target is 0 everywhere do not count.

    Returns:
        A tensor that broadcasts to ``target``, or None for 1.

    Raises:
        ValueError: shapes do not match.
    """
    weight: Optional[Tensor] = None
    if target_weights is not None:
        weight = upcast(weight_of_leading(target_weights, target, 'target_weights', 'target'))
    if mask is not None:
        check_shape_or_one(mask, target, [1], 'mask', 'target')
        weight = upcast(mask) if weight is None else weight * upcast(mask)
    if skip_empty_channel:
        occupied = upcast((target != 0).flatten(2).any(2))
        occupied = weight_of_leading(occupied, target, 'occupied', 'target')
        weight = occupied if weight is None else weight * occupied
    return weight


@LOSSES.register_module()
class KeypointMSELoss(nn.Module):
    """Heatmaps of keypoints: squared error.

    It has mmpose's call and numbers; see :func:`keypoint_mse_loss` for the formula.

    Args:
        use_target_weight: changes nothing, as in mmpose: weights count where they are given.
        skip_empty_channel: whether channels whose target is 0 everywhere, those of keypoints that are not there, do
            not count.
        loss_weight: factor of the result.

    Shapes:
        Heatmaps (N, K, H, W), or (N, K, D, H, W) as InternetHead has them; ``target_weights`` (N, K) or of the shape
        of the heatmaps; ``mask`` (N, 1, H, W), or of that shape. Returns a scalar: the mean over all elements, those
        of weight 0 included. An empty batch, or all weights 0, gives 0.

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


def with_empty_channels(loss: Any, drawn: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """The targets drawn, with every other channel empty where the instance skips those."""
    if not loss.skip_empty_channel:
        return EMPTY
    target = drawn['target']
    samples, keypoints = torch.arange(target.size(0)), torch.arange(target.size(1))
    occupied = (samples.unsqueeze(1) + keypoints) % 2 == 0
    return {'target': target * weight_of_leading(occupied, target, 'occupied', 'target')}


def masked_heatmap_calls(role: Role) -> Tuple[Call, ...]:
    """The calls of HeatmapHead and AEHead, with weights of keypoints, and of DEKRHead, with weights of pixels.

    Args:
        role: of the heatmaps predicted.
    """
    mask = Input('mask', Role.WEIGHTS, 'N 1 H W', optional=True)
    of_keypoints = Input('target_weights', Role.WEIGHTS, 'N K', optional=True)
    of_pixels = Input('target_weights', Role.WEIGHTS, 'N K H W')
    return (
        heatmap_call('heatmaps', of_keypoints, mask, role=role, consistent=with_empty_channels),
        heatmap_call('pixel_weights', of_pixels, mask, role=role, consistent=with_empty_channels),
    )


def narrow_masks(host: str) -> Difference:
    """The difference from mmpose's masks, each dimension of which may be 1."""
    return Difference(
        host,
        'a mask has the shape of the heatmaps, or 1 in place of the keypoints; mmpose takes 1 in any dimension',
        'contract 5: nothing is broadcast silently, beyond what the host documents',
        SHOWN_IN,
    )


SHOWN_IN = 'tests/openmmlab/test_mmpose_regression.py'

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
        nan_without_weight('mmpose.KeypointMSELoss', SHOWN_IN),
        narrow_masks('mmpose.KeypointMSELoss'),
        no_broadcast('mmpose.KeypointMSELoss', SHOWN_IN),
    ),
)
