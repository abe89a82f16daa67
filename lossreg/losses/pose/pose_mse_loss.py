"""Mean squared error of coordinates, called as in mmpose."""

from typing import ClassVar, Optional

from torch import Tensor, nn

from lossreg.ops.keypoints import weighted_difference
from lossreg.ops.reductions import reduce_loss
from lossreg.ops.weights import weight_if_used
from lossreg.registry import LOSSES
from lossreg.spec import HostClass, LossSpec
from lossreg.spec_parts.differences import nan_without_weight, no_broadcast
from lossreg.spec_parts.pose import KEYPOINT_CALLS, TEST_OF_DIFFERENCES, weight_of_keypoints


def pose_mse_loss(output: Tensor, target: Tensor, target_weight: Optional[Tensor] = None) -> Tensor:
    r"""Squared error of each coordinate; the weight is squared too.

    .. math::
        \ell = \left(w\,(x - t)\right)^2

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
    return error * error


@LOSSES.register_module()
class PoseMSELoss(nn.Module):
    """Regression of coordinates: squared error.

    Drop-in replacement for ``mmpose.MSELoss`` (same call and numbers); see :func:`pose_mse_loss` for the formula.

    Args:
        use_target_weight: whether ``target_weight`` counts; it is required then, and ignored otherwise.
        loss_weight: factor of the result.

    Shapes:
        Coordinates of one shape, such as (N, K, D); ``target_weight`` (N, K), (N, K, 1) or (N, K, D). Returns a
        scalar: the mean over all elements, those of weight 0 included. An empty batch, or all weights 0, gives 0.

    Raises:
        ValueError: shapes do not match, or ``target_weight`` is missing.

    Reference:
        mmpose 1.3, ``MSELoss``.
    """

    spec: ClassVar[LossSpec]

    def __init__(self, use_target_weight: bool = False, loss_weight: float = 1.0) -> None:
        super().__init__()
        self.use_target_weight = use_target_weight
        self.loss_weight = float(loss_weight)

    def forward(self, output: Tensor, target: Tensor, target_weight: Optional[Tensor] = None) -> Tensor:
        """Computes the loss."""
        weight = weight_if_used(target_weight, self.use_target_weight, 'target_weight')
        return self.loss_weight * reduce_loss(pose_mse_loss(output, target, weight), 'mean', None)


PoseMSELoss.spec = LossSpec(
    functions=(pose_mse_loss,),
    calls=KEYPOINT_CALLS,
    variants={'default': {}, 'weighted': {'use_target_weight': True, 'loss_weight': 2.0}},
    references=('https://mmpose.readthedocs.io/en/latest/api.html#module-mmpose.models.losses',),
    stands_in_for=(HostClass('mmpose.MSELoss'),),
    differences=(
        nan_without_weight('mmpose.MSELoss', TEST_OF_DIFFERENCES),
        no_broadcast('mmpose.MSELoss', TEST_OF_DIFFERENCES),
        weight_of_keypoints('mmpose.MSELoss', TEST_OF_DIFFERENCES),
    ),
)
