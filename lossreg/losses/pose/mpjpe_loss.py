"""Mean per joint position error (MPJPE)."""

from typing import ClassVar, Optional

from torch import Tensor, nn

from lossreg.arith import vector_length
from lossreg.ops.keypoints import weighted_difference
from lossreg.ops.reductions import reduce_loss
from lossreg.ops.weights import weight_if_used
from lossreg.registry import LOSSES
from lossreg.spec import HostClass, LossSpec
from lossreg.spec_parts.differences import nan_without_weight, no_broadcast
from lossreg.spec_parts.pose import KEYPOINT_CALLS, TEST_OF_DIFFERENCES, weight_of_keypoints


def mpjpe_loss(output: Tensor, target: Tensor, target_weight: Optional[Tensor] = None) -> Tensor:
    r"""Distance of each predicted joint from its target, weighted.

    .. math::
        \ell = \lVert w\,(x - t) \rVert

    Args:
        output: positions x, (..., D).
        target: positions t, of the same shape.
        target_weight: w, see :func:`~lossreg.ops.keypoints.coordinate_weight`. Where it is 0, NaN does not
            count.

    Returns:
        The distances, (...). At distance 0 the gradient is 0.

    Raises:
        ValueError: shapes do not match.

    Example:
        >>> mpjpe_loss(torch.tensor([[[3.0, 4.0]]]), torch.zeros(1, 1, 2))
        tensor([[5.]])
    """
    return vector_length(weighted_difference(output, target, target_weight))


@LOSSES.register_module()
class MPJPELoss(nn.Module):
    """3-D poses: mean per joint position error.

    Drop-in replacement for ``mmpose.MPJPELoss`` (same call and numbers); see :func:`mpjpe_loss` for the formula.

    Args:
        use_target_weight: whether ``target_weight`` counts; it is required then, and ignored otherwise.
        loss_weight: factor of the result.

    Shapes:
        Positions of one shape, such as (N, K, D); ``target_weight`` (N, K), (N, K, 1) or (N, K, D). Returns a scalar:
        the mean over all joints, those of weight 0 included. An empty batch, or all weights 0, gives 0.

    Raises:
        ValueError: shapes do not match, or ``target_weight`` is missing.

    Reference:
        Ionescu et al., Human3.6M: Large Scale Datasets and Predictive Methods for 3D Human Sensing, TPAMI 2014.
    """

    spec: ClassVar[LossSpec]

    def __init__(self, use_target_weight: bool = False, loss_weight: float = 1.0) -> None:
        super().__init__()
        self.use_target_weight = use_target_weight
        self.loss_weight = float(loss_weight)

    def forward(self, output: Tensor, target: Tensor, target_weight: Optional[Tensor] = None) -> Tensor:
        """Computes the loss."""
        weight = weight_if_used(target_weight, self.use_target_weight, 'target_weight')
        return self.loss_weight * reduce_loss(mpjpe_loss(output, target, weight), 'mean', None)


MPJPELoss.spec = LossSpec(
    functions=(mpjpe_loss,),
    calls=KEYPOINT_CALLS,
    variants={'default': {}, 'weighted': {'use_target_weight': True}, 'light': {'loss_weight': 0.5}},
    references=('https://mmpose.readthedocs.io/en/latest/api.html#module-mmpose.models.losses',),
    stands_in_for=(HostClass('mmpose.MPJPELoss'),),
    differences=(
        nan_without_weight('mmpose.MPJPELoss', TEST_OF_DIFFERENCES),
        no_broadcast('mmpose.MPJPELoss', TEST_OF_DIFFERENCES),
        weight_of_keypoints('mmpose.MPJPELoss', TEST_OF_DIFFERENCES),
    ),
)
