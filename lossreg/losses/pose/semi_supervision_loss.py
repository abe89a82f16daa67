"""Losses of unlabelled 3-D poses: projection and bone lengths, called as in mmpose."""

from collections.abc import Sequence
from typing import ClassVar, Dict

import torch
from torch import Tensor, nn

from lossreg.arith import (
    check_broadcast,
    check_dim,
    check_leading_shape,
    check_size,
    check_size_among,
    keep,
    poison,
    upcast,
    vector_length,
)
from lossreg.ops.keypoints import bones_between, bones_of
from lossreg.ops.reductions import average_over, total
from lossreg.options import allow_missing
from lossreg.registry import LOSSES
from lossreg.spec import Call, Difference, HostClass, Input, LossSpec, Role


def project_joints(x: Tensor, intrinsics: Tensor) -> Tensor:
    r"""Projects 3-D joints into the image of a camera.

    .. math::
        u = f\, \big(r\, (1 + k_1 q + k_2 q^2 + k_3 q^3 + p \cdot r) + p\, q\big) + c, \qquad
        r = \min(\max((x, y) / z, -1), 1), \qquad q = \lVert r \rVert^2

    Args:
        x: joints, (N, K, 3). At z = 0, r is the sign of x and of y.
        intrinsics: f (2 numbers) and c (2), or f, c, k (3) and p (2), (N, 4) or (N, 9).

    Returns:
        (N, K, 2).

    Raises:
        ValueError: shapes do not match.
    """
    check_dim(x, 3, 'x')
    check_dim(intrinsics, 2, 'intrinsics')
    check_leading_shape(intrinsics, x, 1, 'intrinsics', 'x')
    check_size_among(intrinsics, 1, [4, 9], 'intrinsics', 'numbers')
    camera = upcast(intrinsics)
    # without distortion the coefficients are 0
    camera = torch.cat([camera, torch.zeros_like(camera), torch.zeros_like(camera[:, :1])], 1)[:, :9].unsqueeze(1)
    f, c, k, p = camera[..., 0:2], camera[..., 2:4], camera[..., 4:7], camera[..., 7:9]
    r = _over_depth(x[..., :2], x[..., 2:])
    q = (r * r).sum(-1, keepdim=True)
    radial = (k * torch.cat([q, q * q, q * q * q], -1)).sum(-1, keepdim=True)
    tangential = (p * r).sum(-1, keepdim=True)
    return f * (r * (1.0 + radial + tangential) + p * q) + c


def _over_depth(x: Tensor, z: Tensor) -> Tensor:
    """x / z clamped to [-1, 1], with gradient 0 beyond these limits and where z is 0."""
    inside = (x.abs() <= z.abs()) & (z != 0)
    flipped = torch.where(z < 0, -x, x)
    side = torch.where(flipped > 0, 1.0, torch.where(flipped < 0, -1.0, 0.0))
    ratio = torch.where(inside, x / torch.where(inside, z, 1.0), side)
    return poison(ratio, ~(torch.isnan(x) | torch.isnan(z)))


def projection_loss(x: Tensor, intrinsics: Tensor, target: Tensor) -> Tensor:
    """Mean distance in the image between projected joints (N, K, 3) and their targets (N, K, 2): a scalar."""
    distances = vector_length(project_joints(x, intrinsics) - upcast(target))
    return average_over(total(distances), distances.numel())


def unpaired_bone_loss(output: Tensor, target: Tensor, joints: Tensor, parents: Tensor) -> Tensor:
    """Difference of the mean bone lengths of two batches (N, K, D) and (M, K, D); 0 where one is empty.

    See :func:`lossreg.functional.bone_loss`.
    """
    lengths = vector_length(bones_between(upcast(output), joints, parents)).sum(0)
    target_lengths = vector_length(bones_between(upcast(target), joints, parents)).sum(0)
    difference = average_over(lengths, output.size(0)) - average_over(target_lengths, target.size(0))
    both = torch.zeros_like(difference) + output.size(0) * target.size(0) != 0
    return average_over(total(keep(difference, both).abs()), difference.numel())


@LOSSES.register_module()
class SemiSupervisionLoss(nn.Module):
    """3-D poses without labels: error of their projection, and of their bone lengths.

    Drop-in replacement for ``mmpose.SemiSupervisionLoss`` (same call and numbers).

    ``forward`` takes two dicts and returns one::

        output: labeled_pose (M, K, 3), unlabeled_pose (N, K, 3), unlabeled_traj (N, 1, 3)
        target: unlabeled_target_2d (N, K, 2), intrinsics (N, 4) or (N, 9)
        returns proj_loss, the mean of :func:`projection_loss` for pose + trajectory, and bone_loss

    Both are 0 in the first ``warmup_iterations`` calls in training mode. The loss counts these calls in the buffer
    ``num_iterations``; artefacts take it as input and return ``next_num_iterations``.

    Args:
        joint_parents: the parent of each joint; a root is its own parent.
        projection_loss_weight: factor of ``proj_loss``.
        bone_loss_weight: factor of ``bone_loss``.
        warmup_iterations: see above.

    Shapes:
        See above; (N, K, 3) for the trajectory too. Both losses are scalars; an empty batch gives 0.

    Raises:
        ValueError: ``joint_parents`` names a joint that does not exist, shapes do not match.

    Reference:
        Pavllo et al., 3D Human Pose Estimation in Video with Temporal Convolutions and Semi-supervised Training,
        CVPR 2019.
    """

    spec: ClassVar[LossSpec]
    joints: Tensor
    parents: Tensor
    num_iterations: Tensor

    def __init__(
        self,
        joint_parents: Sequence[int],
        projection_loss_weight: float = 1.0,
        bone_loss_weight: float = 1.0,
        warmup_iterations: int = 0,
    ) -> None:
        super().__init__()
        self.joint_parents = list(joint_parents)
        self.projection_loss_weight = float(projection_loss_weight)
        self.bone_loss_weight = float(bone_loss_weight)
        self.warmup_iterations = warmup_iterations
        joints, parents = bones_of(self.joint_parents)
        self.register_buffer('joints', joints, persistent=False)
        self.register_buffer('parents', parents, persistent=False)
        self.register_buffer('num_iterations', torch.zeros((), dtype=torch.int64))
        allow_missing(self, 'num_iterations')  # mmpose's checkpoints do not hold it

    def forward(self, output: Dict[str, Tensor], target: Dict[str, Tensor]) -> Dict[str, Tensor]:
        """Computes both losses and, in training mode, counts the iteration."""
        results = self.step(output, target, self.num_iterations)
        if self.training:
            self.num_iterations = results['next_num_iterations']
        return {'proj_loss': results['proj_loss'], 'bone_loss': results['bone_loss']}

    def step(self, output: Dict[str, Tensor], target: Dict[str, Tensor], num_iterations: Tensor) -> Dict[str, Tensor]:
        """Computes both losses and the next ``num_iterations``, and changes nothing."""
        pose, labelled = output['unlabeled_pose'], output['labeled_pose']
        trajectory, intrinsics = output['unlabeled_traj'], target['intrinsics']
        places = target['unlabeled_target_2d']
        check_dim(pose, 3, 'unlabeled_pose')
        check_dim(labelled, 3, 'labeled_pose')
        check_dim(trajectory, 3, 'unlabeled_traj')
        check_leading_shape(trajectory, pose, 1, 'unlabeled_traj', 'unlabeled_pose')
        check_broadcast(trajectory, pose, 'unlabeled_traj', 'unlabeled_pose', 1)
        check_leading_shape(places, pose, 2, 'unlabeled_target_2d', 'unlabeled_pose')
        check_size(places, 2, 2, 'unlabeled_target_2d', 'coordinates')
        check_leading_shape(intrinsics, pose, 1, 'intrinsics', 'unlabeled_pose')
        check_size(labelled, 1, pose.size(1), 'labeled_pose', 'joints of unlabeled_pose')
        check_size(pose, 1, len(self.joint_parents), 'unlabeled_pose', 'joints')
        next_iterations = (num_iterations + 1).detach()
        counted = next_iterations > self.warmup_iterations
        pose, labelled = keep(upcast(pose), counted), keep(upcast(labelled), counted)
        trajectory, intrinsics = keep(upcast(trajectory), counted), keep(upcast(intrinsics), counted)
        projection = projection_loss(pose + trajectory, intrinsics, keep(upcast(places), counted))
        bones = unpaired_bone_loss(pose, labelled, self.joints, self.parents)
        return {
            'proj_loss': self.projection_loss_weight * projection,
            'bone_loss': self.bone_loss_weight * bones,
            'next_num_iterations': next_iterations,
        }


def _call(name: str, numbers: int) -> Call:
    """A call with cameras of that many numbers."""
    return Call(
        name,
        (
            Input('unlabeled_pose', Role.LOGITS, 'N K 3', differentiable=True),
            Input('unlabeled_traj', Role.LOGITS, 'N 1 3', differentiable=True),
            Input('labeled_pose', Role.LOGITS, 'M K 3', differentiable=True),
            Input('unlabeled_target_2d', Role.LOGITS, 'N K 2'),
            Input('intrinsics', Role.LOGITS, f'N {numbers}'),
            Input('num_iterations', Role.TALLIES, '', state=True),
        ),
        arguments={
            'output': {name: name for name in ('labeled_pose', 'unlabeled_pose', 'unlabeled_traj')},
            'target': {name: name for name in ('unlabeled_target_2d', 'intrinsics')},
        },
        outputs=('proj_loss', 'bone_loss'),
        returns_dict=True,
        method='step',
    )


SemiSupervisionLoss.spec = LossSpec(
    functions=(projection_loss, project_joints, unpaired_bone_loss),
    calls=(_call('pinhole', 4), _call('distorted', 9)),
    variants={
        'default': {'joint_parents': [0, 0, 1, 2, 0]},
        'weighted': {'joint_parents': [2, 0, 2, 1], 'projection_loss_weight': 0.5, 'bone_loss_weight': 2.0},
        'warmup': {'joint_parents': [0, 0, 1, 2, 0], 'warmup_iterations': 2},
    },
    references=('https://arxiv.org/abs/1811.11742',),
    sizes=lambda loss: {'K': len(loss.joint_parents)},
    stands_in_for=(HostClass('mmpose.SemiSupervisionLoss'),),
    differences=(
        Difference(
            'mmpose.SemiSupervisionLoss',
            'while it warms up, it returns both losses as 0; mmpose returns an empty dict',
            'the outputs must not depend on values, or no graph could compute them',
            'tests/openmmlab/test_mmpose_other.py',
        ),
        Difference(
            'mmpose.SemiSupervisionLoss',
            'only calls in training mode are counted, and checkpoints hold the count; mmpose counts every call, and '
            'anew after a training is resumed',
            'all losses here keep their state this way',
            'tests/openmmlab/test_mmpose_other.py',
        ),
        Difference(
            'mmpose.SemiSupervisionLoss',
            'a joint at depth 0 has derivative 0, and is projected to 0 where x = 0; the host returns NaN for both',
            'contract 6: degenerate inputs are finite',
            'tests/openmmlab/test_mmpose_other.py',
        ),
    ),
)
