"""Focal loss of keypoint heatmaps."""

from typing import ClassVar, Optional

import torch
from torch import Tensor, nn

from lossreg.arith import check_same_shape, keep, negative_log, negative_log_of_rest, power, upcast
from lossreg.ops.keypoints import heatmap_weight
from lossreg.ops.reductions import total
from lossreg.registry import LOSSES
from lossreg.spec import HostClass, LossSpec, Role
from lossreg.spec_parts.differences import nan_without_weight, no_broadcast
from lossreg.spec_parts.pose import TEST_OF_DIFFERENCES, masked_heatmap_calls, narrow_masks


def focal_heatmap_loss(
    output: Tensor,
    target: Tensor,
    target_weights: Optional[Tensor] = None,
    mask: Optional[Tensor] = None,
    alpha: float = 2.0,
    beta: float = 4.0,
    skip_empty_channel: bool = False,
) -> Tensor:
    r"""Focal loss summed over all heatmaps, divided by the total weight of their peaks.

    .. math::
        \frac{1}{P} \sum_{nkp} w \begin{cases}
            (1 - x)^\alpha\,(-\log x) & t = 1 \\
            (1 - t)^\beta\,x^\alpha\,(-\log(1 - x)) & t < 1
        \end{cases}, \qquad P = \sum_{t = 1} w, \text{ or 1 where that is 0}

    with w of :func:`~lossreg.ops.keypoints.heatmap_weight`.

    Args:
        output: probabilities x, (N, K, H, W). Outside [0, 1] they give NaN; the logarithm of 0 is -100, as in torch's
            cross-entropy, with gradient 0.
        target: heatmaps t of the same shape, exactly 1 at each keypoint; above 1 they do not count.
        target_weights: (N, K), or (N, K, H, W). Where w is 0, NaN in ``output`` and ``target`` does not count.
        mask: (N, 1, H, W) or (N, K, H, W), multiplied into w.
        alpha: focusing exponent, >= 0.
        beta: exponent that reduces the loss of pixels near a keypoint, >= 0.
        skip_empty_channel: whether to ignore channels whose target is 0 everywhere.

    Returns:
        A scalar.

    Raises:
        ValueError: shapes do not match.
    """
    check_same_shape(target, output, 'target', 'output')
    weight = heatmap_weight(target, target_weights, mask, skip_empty_channel)
    x, t = upcast(output), upcast(target)
    if weight is not None:
        x, t = keep(x, weight != 0), keep(t, weight != 0)
    peak = t == 1
    nll = torch.where(peak, negative_log(x), negative_log_of_rest(x))
    miss = torch.where(peak, 1.0 - x, x)
    factor = torch.where(peak, 1.0, torch.where(t > 1, 0.0, power(1.0 - t, beta)))
    loss = factor * power(miss, alpha) * nll
    peaks = peak.to(loss.dtype)
    if weight is not None:
        loss, peaks = loss * weight, peaks * weight
    # P, or 1
    divisor = total(peaks)
    return total(loss) / torch.where(divisor == 0, 1.0, divisor)


@LOSSES.register_module()
class FocalHeatmapLoss(nn.Module):
    """Heatmaps of keypoints: focal loss around Gaussian peaks.

    Drop-in replacement for ``mmpose.FocalHeatmapLoss`` (same call and numbers); see :func:`focal_heatmap_loss` for the
    formula.

    Args:
        alpha: focusing exponent, >= 0.
        beta: exponent that reduces the loss of pixels near a keypoint, >= 0.
        use_target_weight: changes nothing, as in mmpose: weights count where they are given.
        skip_empty_channel: whether to ignore channels whose target is 0 everywhere, those of absent keypoints.
        loss_weight: factor of the result.

    Shapes:
        Probabilities and heatmaps (N, K, H, W); ``target_weights`` (N, K) or (N, K, H, W); ``mask`` (N, 1, H, W) or
        (N, K, H, W). Returns a scalar: the sum over all pixels, divided by the number (or weight) of keypoints; without
        any, the sum itself. An empty batch, or all weights 0, gives 0.

    Raises:
        ValueError: negative ``alpha`` or ``beta``, or shapes do not match.

    Reference:
        Law and Deng, CornerNet: Detecting Objects as Paired Keypoints, ECCV 2018.
    """

    spec: ClassVar[LossSpec]

    def __init__(
        self,
        alpha: float = 2.0,
        beta: float = 4.0,
        use_target_weight: bool = False,
        skip_empty_channel: bool = False,
        loss_weight: float = 1.0,
    ) -> None:
        super().__init__()
        if alpha < 0 or beta < 0:
            raise ValueError(f'alpha and beta must be >= 0, got {alpha} and {beta}')
        self.alpha = float(alpha)
        self.beta = float(beta)
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
        loss = focal_heatmap_loss(output, target, target_weights, mask, self.alpha, self.beta, self.skip_empty_channel)
        return self.loss_weight * loss


FocalHeatmapLoss.spec = LossSpec(
    functions=(focal_heatmap_loss,),
    calls=masked_heatmap_calls(Role.PROBABILITIES),
    variants={
        'default': {},
        'decoupled': {'loss_weight': 4.0},
        'exponents': {'alpha': 1.5, 'beta': 0.5, 'use_target_weight': True},
        'skip_empty': {'skip_empty_channel': True},
    },
    references=('https://arxiv.org/abs/1808.01244',),
    stands_in_for=(HostClass('mmpose.FocalHeatmapLoss'),),
    differences=(
        nan_without_weight('mmpose.FocalHeatmapLoss', TEST_OF_DIFFERENCES),
        narrow_masks('mmpose.FocalHeatmapLoss'),
        no_broadcast('mmpose.FocalHeatmapLoss', TEST_OF_DIFFERENCES),
    ),
)
