"""Smooth L1 loss of coordinates, called as in mmpose."""

from typing import ClassVar, Optional

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lossreg.ops.keypoints import weighted_difference
from lossreg.ops.reductions import reduce_loss
from lossreg.ops.weights import weight_if_used
from lossreg.registry import LOSSES
from lossreg.spec import HostClass, LossSpec
from lossreg.spec_parts.differences import nan_without_weight, no_broadcast
from lossreg.spec_parts.pose import JOINT_WEIGHTS_CALL, KEYPOINT_CALLS, TEST_OF_DIFFERENCES


def pose_smooth_l1_loss(output: Tensor, target: Tensor, target_weight: Optional[Tensor] = None) -> Tensor:
    r"""Smooth L1 loss of each coordinate's weighted error.

    .. math::
        \ell = \begin{cases} d^2 / 2 & d < 1 \\ d - 1/2 & \text{elsewhere} \end{cases}, \qquad d = |w\,(x - t)|

    Args:
        output: coordinates x, of any shape.
        target: coordinates t, of the same shape.
        target_weight: w, see :func:`~lossreg.ops.keypoints.coordinate_weight`. Where it is 0, NaN does not
            count.

    Returns:
        The losses, of the shape of ``output``.

    Raises:
        ValueError: shapes do not match.
    """
    error = weighted_difference(output, target, target_weight)
    return F.smooth_l1_loss(error, torch.zeros_like(error), reduction='none')


@LOSSES.register_module()
class PoseSmoothL1Loss(nn.Module):
    """Regression of coordinates: smooth L1 loss of the weighted error.

    Drop-in replacement for ``mmpose.SmoothL1Loss`` (same call and numbers); see :func:`pose_smooth_l1_loss` for the
    formula.

    Args:
        use_target_weight: whether ``target_weight`` counts; it is required then, and ignored otherwise.
        loss_weight: factor of the result.

    Shapes:
        Coordinates of one shape, such as (N, K, D); ``target_weight`` (N, K), (N, K, 1) or (N, K, D). Returns a
        scalar: the mean over all elements, those of weight 0 included. An empty batch, or all weights 0, gives 0.

    Raises:
        ValueError: shapes do not match, or ``target_weight`` is missing.

    Reference:
        Girshick, Fast R-CNN, ICCV 2015.
    """

    spec: ClassVar[LossSpec]

    def __init__(self, use_target_weight: bool = False, loss_weight: float = 1.0) -> None:
        super().__init__()
        self.use_target_weight = use_target_weight
        self.loss_weight = float(loss_weight)

    def forward(self, output: Tensor, target: Tensor, target_weight: Optional[Tensor] = None) -> Tensor:
        """Computes the loss."""
        weight = weight_if_used(target_weight, self.use_target_weight, 'target_weight')
        return self.loss_weight * reduce_loss(pose_smooth_l1_loss(output, target, weight), 'mean', None)


PoseSmoothL1Loss.spec = LossSpec(
    functions=(pose_smooth_l1_loss,),
    calls=(*KEYPOINT_CALLS, JOINT_WEIGHTS_CALL),
    variants={'default': {}, 'weighted': {'use_target_weight': True}, 'light': {'loss_weight': 0.5}},
    references=('https://arxiv.org/abs/1504.08083',),
    stands_in_for=(HostClass('mmpose.SmoothL1Loss'),),
    differences=(
        nan_without_weight('mmpose.SmoothL1Loss', TEST_OF_DIFFERENCES),
        no_broadcast('mmpose.SmoothL1Loss', TEST_OF_DIFFERENCES),
    ),
)
