"""Wing loss of coordinates."""

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


def wing_loss(
    output: Tensor,
    target: Tensor,
    target_weight: Optional[Tensor] = None,
    omega: float = 10.0,
    epsilon: float = 2.0,
) -> Tensor:
    r"""Wing loss of each coordinate: steep for small errors, linear for large ones.

    .. math::
        \ell = \begin{cases}
            \omega \log(1 + d / \epsilon) & d < \omega \\
            d - \omega + \omega \log(1 + \omega / \epsilon) & \text{elsewhere}
        \end{cases}, \qquad d = |w\,(x - t)|

    Args:
        output: coordinates x, of any shape.
        target: coordinates t, of the same shape.
        target_weight: w, see :func:`~lossreg.ops.keypoints.coordinate_weight`. Where it is 0, NaN does not
            count.
        omega: the error at which the logarithm ends, > 0.
        epsilon: scale of the error inside the logarithm, > 0.

    Returns:
        The losses, of the shape of ``output``.

    Raises:
        ValueError: shapes do not match.

    Example:
        >>> wing_loss(torch.tensor([1.0, 20.0]), torch.zeros(2))  # 10 log(1 + 1/2), and 10 + 10 log 6
        tensor([ 4.0547, 27.9176])
    """
    d = weighted_difference(output, target, target_weight).abs()
    # d - w + w log(1 + w / eps)
    beyond = d - omega * (1.0 - math.log(1.0 + omega / epsilon))
    return torch.where(d < omega, omega * torch.log1p(d / epsilon), beyond)


@LOSSES.register_module()
class WingLoss(nn.Module):
    """Regression of coordinates: logarithmic for small errors, linear for large ones.

    Drop-in replacement for ``mmpose.WingLoss`` (same call and numbers); see :func:`wing_loss` for the formula.

    Args:
        omega: the error at which the logarithm ends, > 0.
        epsilon: scale of the error inside the logarithm, > 0.
        use_target_weight: whether ``target_weight`` counts; it is required then, and ignored otherwise.
        loss_weight: factor of the result.

    Shapes:
        Coordinates (N, K, D); ``target_weight`` (N, K), (N, K, 1) or (N, K, D). Returns a scalar: the sum over all
        coordinates of a sample, averaged over the samples. An empty batch, or all weights 0, gives 0.

    Raises:
        ValueError: ``omega`` or ``epsilon`` is not above 0, shapes do not match, or ``target_weight`` is missing.

    Reference:
        Feng et al., Wing Loss for Robust Facial Landmark Localisation with Convolutional Neural Networks, CVPR 2018.
    """

    spec: ClassVar[LossSpec]

    def __init__(
        self,
        omega: float = 10.0,
        epsilon: float = 2.0,
        use_target_weight: bool = False,
        loss_weight: float = 1.0,
    ) -> None:
        super().__init__()
        if omega <= 0 or epsilon <= 0:
            raise ValueError(f'omega and epsilon must be above 0, got {omega} and {epsilon}')
        self.omega = float(omega)
        self.epsilon = float(epsilon)
        self.use_target_weight = use_target_weight
        self.loss_weight = float(loss_weight)

    def forward(self, output: Tensor, target: Tensor, target_weight: Optional[Tensor] = None) -> Tensor:
        """Computes the loss."""
        check_dim(output, 3, 'output')
        weight = weight_if_used(target_weight, self.use_target_weight, 'target_weight')
        loss = wing_loss(output, target, weight, self.omega, self.epsilon)
        return self.loss_weight * average_over(total(loss), loss.size(0))


WingLoss.spec = LossSpec(
    functions=(wing_loss,),
    calls=KEYPOINT_CALLS,
    variants={
        'default': {},
        'weighted': {'use_target_weight': True},
        'narrow': {'omega': 1.5, 'epsilon': 0.5, 'use_target_weight': True, 'loss_weight': 0.5},
    },
    references=('https://arxiv.org/abs/1711.06753',),
    stands_in_for=(HostClass('mmpose.WingLoss'),),
    differences=(
        nan_without_weight('mmpose.WingLoss', TEST_OF_DIFFERENCES),
        no_broadcast('mmpose.WingLoss', TEST_OF_DIFFERENCES),
        weight_of_keypoints('mmpose.WingLoss', TEST_OF_DIFFERENCES),
    ),
)
