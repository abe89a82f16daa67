"""Smooth L1 loss of coordinates, averaged over those with a weight above 0."""

from typing import ClassVar, Optional

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lossreg.arith import check_same_shape, keep, upcast
from lossreg.ops.keypoints import coordinate_weight
from lossreg.ops.reductions import reduce_loss, total
from lossreg.ops.weights import weight_if_used
from lossreg.options import check_not_negative
from lossreg.registry import LOSSES
from lossreg.spec import HostClass, LossSpec
from lossreg.spec_parts.differences import nan_without_weight, no_broadcast
from lossreg.spec_parts.pose import JOINT_WEIGHTS_CALL, KEYPOINT_CALLS, MAP_CALL, TEST_OF_DIFFERENCES


def soft_weight_smooth_l1_loss(
    output: Tensor, target: Tensor, target_weight: Optional[Tensor] = None, beta: float = 1.0
) -> Tensor:
    r"""Smooth L1 loss of each coordinate, weighted.

    .. math::
        \ell = w \begin{cases} d^2 / (2 \beta) & d < \beta \\ d - \beta / 2 & \text{elsewhere} \end{cases}, \qquad
        d = |x - t|

    Args:
        output: coordinates x, of any shape.
        target: coordinates t, of the same shape.
        target_weight: w, see :func:`~lossreg.ops.keypoints.coordinate_weight`. Where it is 0, NaN does not
            count.
        beta: the error at which the square ends, >= 0; 0 gives the L1 loss.

    Returns:
        The losses, of the shape of ``output``.

    Raises:
        ValueError: shapes do not match.
    """
    check_same_shape(target, output, 'target', 'output')
    error = upcast(output) - upcast(target)
    if target_weight is None:
        return F.smooth_l1_loss(error, torch.zeros_like(error), reduction='none', beta=beta)
    weight = coordinate_weight(target_weight, output)
    error = keep(error, weight != 0)
    return F.smooth_l1_loss(error, torch.zeros_like(error), reduction='none', beta=beta) * weight


@LOSSES.register_module()
class SoftWeightSmoothL1Loss(nn.Module):
    """Regression of coordinates or maps: smooth L1 loss, averaged over the elements with a weight above 0.

    Drop-in replacement for ``mmpose.SoftWeightSmoothL1Loss`` (same call and numbers); see
    :func:`soft_weight_smooth_l1_loss` for the formula.

    Args:
        use_target_weight: whether ``target_weight`` counts; it is required then, and ignored otherwise.
        supervise_empty: whether a weighted mean is over all elements. Otherwise it is over the number of weights above
            0; a weight of (N, K, 1) counts once for all D coordinates, as in mmpose.
        beta: the error at which the square ends, >= 0.
        loss_weight: factor of the result.

    Shapes:
        Coordinates of one shape, such as (N, K, D), or maps of them (N, C, H, W); ``target_weight`` of that shape, that
        with 1 as the last dimension, or without it. Returns a scalar. An empty batch, or all weights 0, gives 0.

    Raises:
        ValueError: negative ``beta``, shapes do not match, or ``target_weight`` is missing.

    Reference:
        Geng et al., Bottom-Up Human Pose Estimation Via Disentangled Keypoint Regression, CVPR 2021.
    """

    spec: ClassVar[LossSpec]

    def __init__(
        self,
        use_target_weight: bool = False,
        supervise_empty: bool = True,
        beta: float = 1.0,
        loss_weight: float = 1.0,
    ) -> None:
        super().__init__()
        check_not_negative(beta, 'beta')
        self.use_target_weight = use_target_weight
        self.supervise_empty = supervise_empty
        self.beta = float(beta)
        self.loss_weight = float(loss_weight)

    def forward(self, output: Tensor, target: Tensor, target_weight: Optional[Tensor] = None) -> Tensor:
        """Computes the loss."""
        weight = weight_if_used(target_weight, self.use_target_weight, 'target_weight')
        loss = soft_weight_smooth_l1_loss(output, target, weight, self.beta)
        if weight is None or self.supervise_empty:
            return self.loss_weight * reduce_loss(loss, 'mean', None)
        # sum of the losses / number of weights above 0, or / 1 where there is none
        counted = total((upcast(weight) > 0).to(loss.dtype))
        return self.loss_weight * total(loss) / counted.clamp(min=1.0)


SoftWeightSmoothL1Loss.spec = LossSpec(
    functions=(soft_weight_smooth_l1_loss,),
    calls=(*KEYPOINT_CALLS, JOINT_WEIGHTS_CALL, MAP_CALL),
    variants={
        'default': {},
        'dekr': {'use_target_weight': True, 'supervise_empty': False, 'beta': 1 / 9, 'loss_weight': 0.002},
        'weighted': {'use_target_weight': True, 'loss_weight': 2.0},
        'unweighted': {'supervise_empty': False, 'beta': 0.5},
        'l1': {'use_target_weight': True, 'beta': 0.0},
    },
    references=('https://arxiv.org/abs/2104.02300',),
    stands_in_for=(HostClass('mmpose.SoftWeightSmoothL1Loss'),),
    differences=(
        nan_without_weight('mmpose.SoftWeightSmoothL1Loss', TEST_OF_DIFFERENCES),
        no_broadcast('mmpose.SoftWeightSmoothL1Loss', TEST_OF_DIFFERENCES),
    ),
)
