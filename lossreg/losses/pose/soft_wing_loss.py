"""Soft wing loss of coordinates."""

import math
from typing import ClassVar, Optional

import torch
from torch import Tensor, nn

from lossreg.arith import check_dim
from lossreg.ops.keypoints import weighted_difference
from lossreg.ops.reductions import average_over, total
from lossreg.ops.weights import weight_if_used
from lossreg.registry import LOSSES
from lossreg.spec import HostClass, LossSpec
from lossreg.spec_parts.differences import nan_without_weight, no_broadcast
from lossreg.spec_parts.pose import KEYPOINT_CALLS, TEST_OF_DIFFERENCES, weight_of_keypoints


def soft_wing_loss(
    output: Tensor,
    target: Tensor,
    target_weight: Optional[Tensor] = None,
    omega1: float = 2.0,
    omega2: float = 20.0,
    epsilon: float = 0.5,
) -> Tensor:
    r"""Soft wing loss of each coordinate: linear for small errors, logarithmic for large ones.

    .. math::
        \ell = \begin{cases}
            d & d < \omega_1 \\
            \omega_1 + \omega_2 \log(1 + d / \epsilon) - \omega_2 \log(1 + \omega_1 / \epsilon) & \text{elsewhere}
        \end{cases}, \qquad d = |w\,(x - t)|

    Args:
        output: coordinates x, of any shape.
        target: coordinates t, of the same shape.
        target_weight: w, see :func:`~lossreg.ops.keypoints.coordinate_weight`. Where it is 0, NaN does not
            count.
        omega1: the error at which the logarithm begins, > 0.
        omega2: factor of the logarithm.
        epsilon: scale of the error inside the logarithm, > 0.

    Returns:
        The losses, of the shape of ``output``.

    Raises:
        ValueError: shapes do not match.
    """
    d = weighted_difference(output, target, target_weight).abs()
    # w1 + w2 log(1 + d / eps) - w2 log(1 + w1 / eps)
    beyond = omega2 * torch.log1p(d / epsilon) + (omega1 - omega2 * math.log(1.0 + omega1 / epsilon))
    return torch.where(d < omega1, d, beyond)


@LOSSES.register_module()
class SoftWingLoss(nn.Module):
    """Regression of coordinates: linear for small errors, logarithmic for large ones.

    Drop-in replacement for ``mmpose.SoftWingLoss`` (same call and numbers); see :func:`soft_wing_loss` for the formula.

    Args:
        omega1: the error at which the logarithm begins, > 0.
        omega2: factor of the logarithm.
        epsilon: scale of the error inside the logarithm, > 0.
        use_target_weight: whether ``target_weight`` counts; it is required then, and ignored otherwise.
        loss_weight: factor of the result.

    Shapes:
        Coordinates (N, K, D); ``target_weight`` (N, K), (N, K, 1) or (N, K, D). Returns a scalar: the sum over all
        coordinates of a sample, averaged over the samples. An empty batch, or all weights 0, gives 0.

    Raises:
        ValueError: ``omega1`` or ``epsilon`` is not above 0, shapes do not match, or ``target_weight`` is missing.

    Reference:
        Lin et al., Structure-Coherent Deep Feature Learning for Robust Face Alignment, TIP 2021.
    """

    spec: ClassVar[LossSpec]

    def __init__(
        self,
        omega1: float = 2.0,
        omega2: float = 20.0,
        epsilon: float = 0.5,
        use_target_weight: bool = False,
        loss_weight: float = 1.0,
    ) -> None:
        super().__init__()
        if omega1 <= 0 or epsilon <= 0:
            raise ValueError(f'omega1 and epsilon must be above 0, got {omega1} and {epsilon}')
        self.omega1 = float(omega1)
        self.omega2 = float(omega2)
        self.epsilon = float(epsilon)
        self.use_target_weight = use_target_weight
        self.loss_weight = float(loss_weight)

    def forward(self, output: Tensor, target: Tensor, target_weight: Optional[Tensor] = None) -> Tensor:
        """Computes the loss."""
        check_dim(output, 3, 'output')
        weight = weight_if_used(target_weight, self.use_target_weight, 'target_weight')
        loss = soft_wing_loss(output, target, weight, self.omega1, self.omega2, self.epsilon)
        return self.loss_weight * average_over(total(loss), loss.size(0))


SoftWingLoss.spec = LossSpec(
    functions=(soft_wing_loss,),
    calls=KEYPOINT_CALLS,
    variants={
        'default': {},
        'weighted': {'use_target_weight': True},
        'narrow': {'omega1': 1.0, 'omega2': 5.0, 'epsilon': 1.5, 'use_target_weight': True, 'loss_weight': 0.5},
    },
    references=('https://github.com/BeierZhu/Sturcture-Coherency-Face-Alignment',),
    stands_in_for=(HostClass('mmpose.SoftWingLoss'),),
    differences=(
        nan_without_weight('mmpose.SoftWingLoss', TEST_OF_DIFFERENCES),
        no_broadcast('mmpose.SoftWingLoss', TEST_OF_DIFFERENCES),
        weight_of_keypoints('mmpose.SoftWingLoss', TEST_OF_DIFFERENCES),
    ),
)
