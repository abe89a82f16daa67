"""Bone length loss, called as in mmpose."""

from collections.abc import Sequence
from typing import ClassVar, Optional

import torch
from torch import Tensor, nn

from lossreg.arith import check_dim, check_leading_shape, check_same_shape, check_size, keep, upcast, vector_length
from lossreg.ops.keypoints import bones_between, bones_of
from lossreg.ops.reductions import average_over, total
from lossreg.registry import LOSSES
from lossreg.spec import Call, HostClass, Input, LossSpec, Role
from lossreg.spec_parts.differences import nan_without_weight


def bone_loss(
    output: Tensor, target: Tensor, joints: Tensor, parents: Tensor, target_weight: Optional[Tensor] = None
) -> Tensor:
    r"""Absolute difference of the mean bone lengths.

    .. math::
        \ell = \frac1B \sum_b \left| \frac1N \sum_n w_{nb} \lVert x_{nb} - x_{n p_b} \rVert
            - \frac1N \sum_n w_{nb} \lVert t_{nb} - t_{n p_b} \rVert \right|

    over the joints b that have a parent :math:`p_b`. A bone of length 0 has no gradient.

    Args:
        output: joints x, (N, K, D).
        target: joints t, (N, K, D).
        joints: the joints that have a parent, (B).
        parents: the parent of each of these, (B).
        target_weight: w, (N, K). Where it is 0, NaN in either end of the bone does not count.

    Returns:
        A scalar.

    Raises:
        ValueError: shapes do not match.
    """
    check_dim(output, 3, 'output')
    check_same_shape(target, output, 'target', 'output')
    if target_weight is not None:
        check_dim(target_weight, 2, 'target_weight')
        check_leading_shape(target_weight, output, 2, 'target_weight', 'output')
        target_weight = upcast(target_weight).index_select(1, joints.to(target_weight.device))
    # stacked, so that a traced graph knows that both have one shape
    bones = bones_between(torch.stack([upcast(output), upcast(target)]), joints, parents)
    if target_weight is not None:
        bones = keep(bones, (target_weight != 0).unsqueeze(-1))
    lengths, target_lengths = vector_length(bones).unbind(0)
    # the difference of means is the mean of differences
    difference = lengths - target_lengths
    if target_weight is not None:
        difference = target_weight * difference
    mean = average_over(difference.sum(0), output.size(0)).abs()
    return average_over(total(mean), mean.numel())


@LOSSES.register_module()
class BoneLoss(nn.Module):
    """3-D poses: difference of the mean bone lengths.

    Drop-in replacement for ``mmpose.BoneLoss`` (same call and numbers); see :func:`bone_loss` for the formula.

    Args:
        joint_parents: the parent of each joint; a root is its own parent.
        use_target_weight: whether ``target_weight`` counts; it is required then.
        loss_weight: factor of the result.
        loss_name: the head's name for the loss.

    Shapes:
        Joints (N, K, D), weights (N, K); weights of roots do not matter. Returns a scalar. An empty batch, or
        all weights 0, give 0.

    Raises:
        ValueError: ``joint_parents`` names a joint that does not exist, shapes do not match, ``target_weight`` is
            missing.

    Reference:
        Pavllo et al., 3D Human Pose Estimation in Video with Temporal Convolutions and Semi-supervised Training,
        CVPR 2019.
    """

    spec: ClassVar[LossSpec]
    joints: Tensor
    parents: Tensor

    def __init__(
        self,
        joint_parents: Sequence[int],
        use_target_weight: bool = False,
        loss_weight: float = 1.0,
        loss_name: str = 'loss_bone',
    ) -> None:
        super().__init__()
        self.joint_parents = list(joint_parents)
        self.use_target_weight = use_target_weight
        self.loss_weight = float(loss_weight)
        self.loss_name = loss_name
        joints, parents = bones_of(self.joint_parents)
        self.non_root_indices: Sequence[int] = [int(joint) for joint in joints]
        self.register_buffer('joints', joints, persistent=False)
        self.register_buffer('parents', parents, persistent=False)

    def forward(self, output: Tensor, target: Tensor, target_weight: Optional[Tensor] = None) -> Tensor:
        """Computes the loss; ``target_weight`` is ignored unless ``use_target_weight``."""
        check_same_shape(target, output, 'target', 'output')
        if not self.use_target_weight:
            target_weight = None
        elif target_weight is None:
            raise ValueError('target_weight is missing; give it, or build the loss with use_target_weight=False')
        else:
            check_leading_shape(target_weight, output, 2, 'target_weight', 'output')
        check_size(output, 1, len(self.joint_parents), 'output', 'joints')
        return self.loss_weight * bone_loss(output, target, self.joints, self.parents, target_weight)


BoneLoss.spec = LossSpec(
    functions=(bone_loss,),
    calls=(
        Call(
            'poses',
            (
                Input('output', Role.LOGITS, 'N K D', differentiable=True),
                Input('target', Role.LOGITS, 'N K D'),
                Input('target_weight', Role.WEIGHTS, 'N K', when=lambda loss: loss.use_target_weight),
            ),
        ),
    ),
    variants={
        'default': {'joint_parents': [0, 0, 1, 2, 0]},
        'weighted': {'joint_parents': [2, 0, 2, 1], 'use_target_weight': True, 'loss_weight': 0.5},
        'human': {
            'joint_parents': [0, 0, 1, 2, 0, 4, 5, 0, 7, 8, 9, 8, 11, 12, 8, 14, 15],
            'loss_weight': 2.0,
            'loss_name': 'loss_skeleton',
        },
    },
    references=('https://arxiv.org/abs/1811.11742',),
    sizes=lambda loss: {'K': len(loss.joint_parents)},
    stands_in_for=(HostClass('mmpose.BoneLoss'),),
    differences=(nan_without_weight('mmpose.BoneLoss', 'tests/openmmlab/test_mmpose_other.py'),),
)
