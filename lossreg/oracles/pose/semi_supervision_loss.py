"""Losses of unlabelled 3-D poses: projection and bone lengths."""

import numpy as np

from lossreg.oracles.reference import Array, Inputs, Options


@np.errstate(all='ignore')
def semi_supervision_loss(call: str, inputs: Inputs, options: Options) -> dict[str, Array]:
    """proj_loss = weight · mean_nk |u(pose_nk + trajectory_n) - place_nk|; bone_loss = weight · mean_b |l_b - m_b|.

    l_b and m_b are the mean lengths of a bone in the unlabelled and in the labelled batch. Both losses are 0 up to
    ``warmup_iterations``.
    """
    pose, trajectory, labelled = inputs['unlabeled_pose'], inputs['unlabeled_traj'], inputs['labeled_pose']
    places, cameras = inputs['unlabeled_target_2d'], inputs['intrinsics']
    following = inputs['num_iterations'] + 1
    projection = bones = 0.0
    if following > options['warmup_iterations']:
        distances = [
            np.linalg.norm(_projected(pose[n, k] + trajectory[n, 0], cameras[n]) - places[n, k])
            for n, k in np.ndindex(pose.shape[:2])
        ]
        projection = float(np.mean(distances)) if distances else 0.0
        bones = _bones(pose, labelled, options['joint_parents'])
    return {
        'proj_loss': np.asarray(options['projection_loss_weight'] * projection),
        'bone_loss': np.asarray(options['bone_loss_weight'] * bones),
        'next_num_iterations': np.asarray(following),
    }


def _bones(pose: Array, labelled: Array, joint_parents: list[int]) -> float:
    """Mean over the bones of the absolute difference of mean lengths; 0 where a batch is empty."""
    bones = [(joint, parent) for joint, parent in enumerate(joint_parents) if joint != parent]
    if not len(pose) or not len(labelled) or not bones:
        return 0.0
    differences = []
    for joint, parent in bones:
        unlabelled_length = np.mean([np.linalg.norm(x[joint] - x[parent]) for x in pose])
        labelled_length = np.mean([np.linalg.norm(x[joint] - x[parent]) for x in labelled])
        differences.append(abs(unlabelled_length - labelled_length))
    return float(np.mean(differences))


def _projected(x: Array, camera: Array) -> Array:
    """u = f (r (1 + k·(q, q², q³) + p·r) + p q) + c, with r = (x, y)/z clamped to [-1, 1] and q = |r|²."""
    r = np.zeros(2)
    for axis in (0, 1):
        if x[axis] != 0 or np.isnan(x[2]):
            r[axis] = np.clip(x[axis] / x[2], -1.0, 1.0)
    f, c, k, p = camera[:2], camera[2:4], np.zeros(3), np.zeros(2)
    if len(camera) == 9:
        k, p = camera[4:7], camera[7:]
    q = np.sum(r**2)
    distorted = r * (1 + k[0] * q + k[1] * q**2 + k[2] * q**3 + np.sum(p * r)) + p * q
    return np.asarray(f * distorted + c)
