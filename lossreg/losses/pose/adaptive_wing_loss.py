"""Adaptive wing loss of heatmaps."""

import math
from typing import ClassVar, Optional

import torch
from torch import Tensor, nn

from lossreg.arith import check_same_shape, keep, softplus, upcast
from lossreg.ops.reductions import reduce_loss
from lossreg.ops.weights import weight_if_used, weight_of_leading
from lossreg.registry import LOSSES
from lossreg.spec import HostClass, LossSpec
from lossreg.spec_parts.differences import nan_without_weight, no_broadcast
from lossreg.spec_parts.pose import (
    TEST_OF_DIFFERENCES,
    WEIGHT_OF_KEYPOINTS,
    WEIGHT_OF_PIXELS,
    heatmap_call,
    uses_target_weight,
)


def adaptive_wing_loss(
    output: Tensor,
    target: Tensor,
    target_weights: Optional[Tensor] = None,
    alpha: float = 2.1,
    omega: float = 14.0,
    epsilon: float = 1.0,
    theta: float = 0.5,
) -> Tensor:
    r"""Adaptive wing loss of each pixel: its exponent falls with the target, so that small errors count at a keypoint.

    .. math::
        \ell = \begin{cases}
            \omega \log(1 + (d / \epsilon)^a) & d < \theta \\
            A\,(d - \theta) + \omega \log(1 + (\theta / \epsilon)^a) & \text{elsewhere}
        \end{cases}, \qquad d = |w\,(x - t)|, \quad a = \alpha - w t

    with the slope at :math:`d = \theta`,
    :math:`A = \omega\,\frac{a}{\theta}\,\frac{(\theta / \epsilon)^a}{1 + (\theta / \epsilon)^a}`.

    Args:
        output: heatmaps x, (N, K, H, W).
        target: heatmaps t in [0, 1], of the same shape.
        target_weights: w, (N, K), or of the shape of ``output``. Where it is 0, NaN in ``output`` and ``target`` does
            not count.
        alpha: the exponent where the target is 0, > w t.
        omega: factor of the logarithm.
        epsilon: scale of the error inside the logarithm, > 0.
        theta: the error at which the logarithm ends, > 0.

    Returns:
        The losses, of the shape of ``output``.

    Raises:
        ValueError: shapes do not match.
    """
    check_same_shape(target, output, 'target', 'output')
    error, t = upcast(output) - upcast(target), upcast(target)
    if target_weights is not None:
        weight = upcast(weight_of_leading(target_weights, output, 'target_weights', 'output'))
        counted = weight != 0
        error, t = keep(error, counted) * weight, keep(t, counted) * weight
    d, a = error.abs(), alpha - t
    near = d < theta
    # 0^a is 0, but has no derivative if a < 1; large errors must not overflow either
    small = torch.where(near & (d != 0), d / epsilon, 1.0)
    logarithm = torch.log1p(torch.where(d == 0, (a == 0).to(a.dtype), small.pow(a)))
    # with z = a log(theta / eps): (theta / eps)^a / (1 + (theta / eps)^a) = sigmoid(z), and its logarithm softplus(z)
    z = a * math.log(theta / epsilon)
    slope = a / theta * torch.sigmoid(z)
    return omega * torch.where(near, logarithm, slope * (d - theta) + softplus(z))


@LOSSES.register_module()
class AdaptiveWingLoss(nn.Module):
    """Regression of heatmaps: small errors count at keypoints, but not in the background.

    Drop-in replacement for ``mmpose.AdaptiveWingLoss`` (same call and numbers); see :func:`adaptive_wing_loss` for the
    formula.

    Args:
        alpha: the exponent where the target is 0; at a target of 1 it is one less.
        omega: factor of the logarithm.
        epsilon: scale of the error inside the logarithm, > 0.
        theta: the error at which the logarithm ends and a line begins, > 0.
        use_target_weight: whether ``target_weights`` count; they are required then, and ignored otherwise.
        loss_weight: factor of the result.

    Shapes:
        Heatmaps (N, K, H, W); ``target_weights`` (N, K) or (N, K, H, W). Returns a scalar: the mean over all elements,
        those of weight 0 included. An empty batch, or all weights 0, gives 0. Weights are meant to be 0 or 1: they also
        multiply the target in the exponent, so a weight of ``alpha`` or more makes it negative.

    Raises:
        ValueError: ``epsilon`` or ``theta`` is not above 0, shapes do not match, or ``target_weights`` are missing.

    Reference:
        Wang et al., Adaptive Wing Loss for Robust Face Alignment via Heatmap Regression, ICCV 2019.
    """

    spec: ClassVar[LossSpec]

    def __init__(
        self,
        alpha: float = 2.1,
        omega: float = 14.0,
        epsilon: float = 1.0,
        theta: float = 0.5,
        use_target_weight: bool = False,
        loss_weight: float = 1.0,
    ) -> None:
        super().__init__()
        if epsilon <= 0 or theta <= 0:
            raise ValueError(f'epsilon and theta must be above 0, got {epsilon} and {theta}')
        self.alpha = float(alpha)
        self.omega = float(omega)
        self.epsilon = float(epsilon)
        self.theta = float(theta)
        self.use_target_weight = use_target_weight
        self.loss_weight = float(loss_weight)

    def forward(self, output: Tensor, target: Tensor, target_weights: Optional[Tensor] = None) -> Tensor:
        """Computes the loss."""
        weights = weight_if_used(target_weights, self.use_target_weight, 'target_weights')
        loss = adaptive_wing_loss(output, target, weights, self.alpha, self.omega, self.epsilon, self.theta)
        return self.loss_weight * reduce_loss(loss, 'mean', None)


AdaptiveWingLoss.spec = LossSpec(
    functions=(adaptive_wing_loss,),
    calls=(
        heatmap_call('heatmaps', WEIGHT_OF_KEYPOINTS),
        heatmap_call('pixel_weights', WEIGHT_OF_PIXELS, when=uses_target_weight),
    ),
    variants={
        'default': {},
        'weighted': {'use_target_weight': True},
        'wide': {'alpha': 3.0, 'omega': 5.0, 'epsilon': 0.5, 'theta': 0.8, 'loss_weight': 0.5},
    },
    references=('https://arxiv.org/abs/1904.07399',),
    stands_in_for=(HostClass('mmpose.AdaptiveWingLoss'),),
    differences=(
        nan_without_weight('mmpose.AdaptiveWingLoss', TEST_OF_DIFFERENCES),
        no_broadcast('mmpose.AdaptiveWingLoss', TEST_OF_DIFFERENCES),
    ),
)
