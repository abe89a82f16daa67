"""Mean squared error of a heatmap and two offset maps per keypoint (UDP)."""

from collections.abc import Mapping
from typing import Any, ClassVar, Optional

import torch
from torch import Tensor, nn

from lossreg.arith import check_dim, check_multiple, check_same_shape, keep, poison, upcast
from lossreg.ops.reductions import reduce_loss
from lossreg.ops.weights import weight_if_used, weight_of_channels
from lossreg.registry import LOSSES
from lossreg.spec import Call, Difference, HostClass, Input, LossSpec, Role
from lossreg.spec_parts.differences import nan_without_weight, no_broadcast
from lossreg.spec_parts.pose import TEST_OF_DIFFERENCES, uses_target_weight


def combined_target_mse_loss(output: Tensor, target: Tensor, target_weights: Optional[Tensor] = None) -> Tensor:
    r"""Squared error of each pixel of heatmaps and offsets; offsets are weighted by the target heatmap.

    .. math::
        \ell_{nkp} = \frac{w^2}{2} \left((x - t)^2 + \left(t\,(x' - t')\right)^2 + \left(t\,(x'' - t'')\right)^2\right)

    Args:
        output: heatmap x and offsets x' and x'' of each keypoint, one after the other, (N, 3 K, H, W).
        target: t, t' and t'', of the same shape.
        target_weights: w, (N, K). Where it is 0, NaN in ``output`` and ``target`` does not count.

    Returns:
        The losses' three terms, (N, 3 K, H, W).

    Raises:
        ValueError: shapes do not match.
    """
    check_dim(output, 4, 'output')
    check_same_shape(target, output, 'target', 'output')
    is_whole = check_multiple(output, 1, 3, 'output')
    t = upcast(target)
    error = upcast(output) - t
    if target_weights is not None:
        weight = weight_of_channels(upcast(target_weights), output, 3, 'target_weights', 'output')
        counted = weight != 0
        error, t = keep(error, counted) * weight, keep(t, counted)
    channel = torch.arange(output.size(1), device=output.device)
    is_heatmap = (channel % 3 == 0).unsqueeze(-1).unsqueeze(-1)
    # w (x - t), and w t (x' - t') with the heatmap t that precedes the offsets
    one = poison(torch.ones([], dtype=t.dtype, device=t.device), is_whole)
    error = error * torch.where(is_heatmap, one, t.index_select(1, channel // 3 * 3))
    return 0.5 * error * error


@LOSSES.register_module()
class CombinedTargetMSELoss(nn.Module):
    """Heatmaps with two offset maps per keypoint (UDP): squared error.

    Drop-in replacement for ``mmpose.CombinedTargetMSELoss`` (same call and numbers); see
    :func:`combined_target_mse_loss`.

    Args:
        use_target_weight: whether ``target_weights`` count; they are required then, and ignored otherwise.
        loss_weight: factor of the result.

    Shapes:
        Maps (N, 3 K, H, W): for each keypoint its heatmap and its two offsets; ``target_weights`` (N, K). Returns a
        scalar: the mean over samples, keypoints and pixels, those of weight 0 included. An empty batch, or all weights
        0, gives 0.

    Raises:
        ValueError: shapes do not match, the number of channels is not a multiple of 3, or ``target_weights`` are
            missing.

    Reference:
        Huang et al., The Devil is in the Details: Delving into Unbiased Data Processing for Human Pose Estimation,
        CVPR 2020.
    """

    spec: ClassVar[LossSpec]

    def __init__(self, use_target_weight: bool = False, loss_weight: float = 1.0) -> None:
        super().__init__()
        self.use_target_weight = use_target_weight
        self.loss_weight = float(loss_weight)

    def forward(self, output: Tensor, target: Tensor, target_weights: Optional[Tensor] = None) -> Tensor:
        """Computes the loss."""
        weights = weight_if_used(target_weights, self.use_target_weight, 'target_weights')
        loss = combined_target_mse_loss(output, target, weights)
        # the three terms of a keypoint are added up
        return self.loss_weight * 3.0 * reduce_loss(loss, 'mean', None)


def _three_channels_a_keypoint(loss: Any, drawn: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """Triples the drawn channels; each three share one weight."""
    keypoint = torch.arange(drawn['output'].size(1))
    maps = {n: torch.cat([x, x.flip(2), x.flip(3)], 1) for n, x in drawn.items() if n != 'target_weights'}
    return maps | {n: x[:, keypoint % x.size(1)] for n, x in drawn.items() if n == 'target_weights'}


CombinedTargetMSELoss.spec = LossSpec(
    functions=(combined_target_mse_loss,),
    calls=(
        Call(
            'heatmaps',
            (
                Input('output', Role.LOGITS, 'N C H W', differentiable=True),
                Input('target', Role.TARGETS, 'N C H W'),
                Input('target_weights', Role.WEIGHTS, 'N K', when=uses_target_weight),
            ),
            consistent=_three_channels_a_keypoint,
        ),
    ),
    variants={'default': {}, 'weighted': {'use_target_weight': True}, 'light': {'loss_weight': 0.5}},
    references=('https://arxiv.org/abs/1911.07524',),
    stands_in_for=(HostClass('mmpose.CombinedTargetMSELoss'),),
    differences=(
        nan_without_weight('mmpose.CombinedTargetMSELoss', TEST_OF_DIFFERENCES),
        no_broadcast('mmpose.CombinedTargetMSELoss', TEST_OF_DIFFERENCES),
        Difference(
            'mmpose.CombinedTargetMSELoss',
            'a number of channels that is not a multiple of 3 is an error; mmpose drops the excess channels',
            'contract 5: the excess channels belong to no keypoint',
            TEST_OF_DIFFERENCES,
        ),
        Difference(
            'mmpose.CombinedTargetMSELoss',
            "maps of one pixel have the weight of their own sample; mmpose pairs each with every sample's weight",
            'it broadcasts the squeezed map of N numbers against N x 1 weights',
            TEST_OF_DIFFERENCES,
        ),
    ),
)
