"""Sum of MPJPE, scale-normalised MPJPE and velocity error, as in MotionBERT."""

from typing import ClassVar, Optional

import torch
from torch import Tensor, nn

from lossreg.arith import check_at_least, check_same_shape, check_shape_or_one, keep, upcast, vector_length
from lossreg.ops.reductions import average, reduce_loss, total
from lossreg.ops.weights import weight_if_used
from lossreg.registry import LOSSES
from lossreg.spec import Call, Difference, HostClass, Input, LossSpec, Role
from lossreg.spec_parts.differences import nan_without_weight, no_broadcast
from lossreg.spec_parts.pose import TEST_OF_DIFFERENCES, uses_target_weight


def mpjpe_velocity_joint_loss(
    output: Tensor,
    target: Tensor,
    target_weight: Optional[Tensor] = None,
    lambda_scale: float = 0.5,
    lambda_3d_velocity: float = 20.0,
) -> Tensor:
    r"""MPJPE, scale-normalised MPJPE and velocity error, added up.

    .. math::
        \frac{1}{NTK} \sum_{ntk} \lVert w\,(x - t) \rVert
        + \frac{\lambda_s}{NTK} \sum_{ntk} \lVert w\,(s_{nt}\,x - t) \rVert
        + \frac{\lambda_v}{N(T-1)K} \sum_{n,t<T,k} \lVert \bar w\,(\dot x - \dot t) \rVert

    with the scale :math:`s_{nt} = \sum_k x \cdot t \,/ \sum_k x \cdot x` over the joints whose w is not 0 (0 / 0 is 0),
    velocities :math:`\dot x_t = x_{t+1} - x_t`, and :math:`\bar w = \min(w_t, w_{t+1})`.

    Args:
        output: positions x, (N, T, K, D), or (T, K, D).
        target: positions t, of the same shape.
        target_weight: w, of that shape, or 1 in place of T, D, or both. Where it is 0, NaN does not count.
        lambda_scale: factor of the scaled poses.
        lambda_3d_velocity: factor of the velocities.

    Returns:
        A scalar. A single frame has no velocity: that term is then 0.

    Raises:
        ValueError: shapes do not match.
    """
    if output.dim() < 3:
        raise ValueError(f'output has shape {list(output.shape)}, but must have frames, joints and coordinates')
    check_same_shape(target, output, 'target', 'output')
    check_at_least(output, -3, 1, 'output', 'a pose')
    x, t = upcast(output), upcast(target)
    weight: Optional[Tensor] = None
    if target_weight is not None:
        check_shape_or_one(target_weight, output, [-3, -1], 'target_weight', 'output')
        weight = upcast(target_weight).expand_as(output)
        x, t = keep(x, weight != 0), keep(t, weight != 0)
    error = x - t
    # s = sum x t / sum x x
    scale = average((x * t).sum(-1).sum(-1), (x * x).sum(-1).sum(-1)).unsqueeze(-1).unsqueeze(-1)
    scaled_error = scale * x - t
    # rolled and masked, because slices of T - 1 frames export with a guard that T = 1 and T = 2 violate
    has_velocity = torch.arange(x.size(-3), device=x.device).unsqueeze(-1) > 0
    velocity_error = keep(error - error.roll([1], [-3]), has_velocity.unsqueeze(-1))
    if weight is not None:
        error, scaled_error = error * weight, scaled_error * weight
        velocity_error = velocity_error * torch.minimum(weight, weight.roll([1], [-3]))
    loss = reduce_loss(vector_length(error), 'mean', None)
    loss = loss + lambda_scale * reduce_loss(vector_length(scaled_error), 'mean', None)
    speed = vector_length(velocity_error)
    count = total(keep(torch.ones_like(speed), has_velocity))
    return loss + lambda_3d_velocity * average(total(speed), count)


@LOSSES.register_module()
class MPJPEVelocityJointLoss(nn.Module):
    """Sequences of 3-D poses (MotionBERT): MPJPE, scale-normalised MPJPE and velocity error.

    Drop-in replacement for ``mmpose.MPJPEVelocityJointLoss`` (same call and numbers); see
    :func:`mpjpe_velocity_joint_loss`.

    Args:
        use_target_weight: whether ``target_weight`` counts; it is required then, and ignored otherwise.
        loss_weight: factor of the result.
        lambda_scale: factor of the error of the scaled poses.
        lambda_3d_velocity: factor of the error of velocities.

    Shapes:
        Positions (N, T, K, D), or (T, K, D); ``target_weight`` of that shape, or with 1 in place of T, D, or both.
        Returns a scalar. An empty batch, or all weights 0, gives 0.

    Raises:
        ValueError: shapes do not match, or ``target_weight`` is missing.

    Reference:
        Zhu et al., MotionBERT: A Unified Perspective on Learning Human Motion Representations, ICCV 2023.
    """

    spec: ClassVar[LossSpec]

    def __init__(
        self,
        use_target_weight: bool = False,
        loss_weight: float = 1.0,
        lambda_scale: float = 0.5,
        lambda_3d_velocity: float = 20.0,
    ) -> None:
        super().__init__()
        self.use_target_weight = use_target_weight
        self.loss_weight = float(loss_weight)
        self.lambda_scale = float(lambda_scale)
        self.lambda_3d_velocity = float(lambda_3d_velocity)

    def forward(self, output: Tensor, target: Tensor, target_weight: Optional[Tensor] = None) -> Tensor:
        """Computes the loss."""
        weight = weight_if_used(target_weight, self.use_target_weight, 'target_weight')
        loss = mpjpe_velocity_joint_loss(output, target, weight, self.lambda_scale, self.lambda_3d_velocity)
        return self.loss_weight * loss


_POSITIONS = (
    Input('output', Role.LOGITS, 'N T K D', differentiable=True),
    Input('target', Role.LOGITS, 'N T K D'),
)

MPJPEVelocityJointLoss.spec = LossSpec(
    functions=(mpjpe_velocity_joint_loss,),
    calls=(
        # the only weights that mmpose's loss accepts; where none is 0, both give the same numbers
        Call('sequences', (*_POSITIONS, Input('target_weight', Role.POSITIVE, 'N 1 K 1', when=uses_target_weight))),
        Call(
            'frame_weights',
            (*_POSITIONS, Input('target_weight', Role.WEIGHTS, 'N T K 1', broadcasts=('T',))),
            when=uses_target_weight,
        ),
    ),
    variants={
        'default': {},
        'weighted': {'use_target_weight': True},
        'slow': {'lambda_scale': 0.0, 'lambda_3d_velocity': 1.5, 'loss_weight': 0.5},
    },
    references=('https://arxiv.org/abs/2210.06551',),
    stands_in_for=(HostClass('mmpose.MPJPEVelocityJointLoss', call='sequences'),),
    differences=(
        nan_without_weight('mmpose.MPJPEVelocityJointLoss', TEST_OF_DIFFERENCES),
        no_broadcast('mmpose.MPJPEVelocityJointLoss', TEST_OF_DIFFERENCES),
        Difference(
            'mmpose.MPJPEVelocityJointLoss',
            'weights of each frame, as MotionRegressionHead gives them: a velocity has the smaller weight of its two '
            'frames; mmpose fails, because there is one velocity fewer than there are weights',
            'the call of the only head that uses this loss must work',
            TEST_OF_DIFFERENCES,
        ),
        Difference(
            'mmpose.MPJPEVelocityJointLoss',
            'the scale of a pose is computed from its joints of nonzero weight; mmpose uses all joints',
            'contract 3: a joint that is switched off contributes nothing to value or gradient',
            TEST_OF_DIFFERENCES,
        ),
    ),
)
