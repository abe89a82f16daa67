"""Weighted errors of keypoints and their heatmaps, the similarity of keypoints, and bones."""

from collections.abc import Sequence
from typing import Optional, Tuple

import torch
from torch import Tensor

from lossreg.arith import (
    check_dim,
    check_leading_shape,
    check_same_shape,
    check_shape_or_one,
    check_size,
    check_weight_shape,
    keep,
    upcast,
)
from lossreg.fused.switch import unmasked
from lossreg.ops.weights import weight_of_leading


def weighted_difference(output: Tensor, target: Tensor, target_weight: Optional[Tensor]) -> Tensor:
    """w (x - t) of each coordinate: exactly 0, with gradient 0, where w is 0.

    Args:
        output: coordinates x, such as (N, K, D).
        target: coordinates t, of the same shape.
        target_weight: w, see :func:`coordinate_weight`.

    Raises:
        ValueError: shapes do not match.
    """
    check_same_shape(target, output, 'target', 'output')
    error = upcast(output) - upcast(target)
    if target_weight is None:
        return error
    weight = coordinate_weight(target_weight, output)
    if not torch.jit.is_scripting():  # type: ignore[attr-defined]
        fast = unmasked(torch.mul, error, weight)
        if fast is not None:
            return fast
    return keep(error, weight != 0) * weight


def coordinate_weight(target_weight: Tensor, output: Tensor) -> Tensor:
    """A weight in full precision that broadcasts to coordinates.

    Args:
        target_weight: of the shape of ``output``, of that with 1 as the last dimension, or of its first dimensions,
            such as (N, K).
        output: coordinates, such as (N, K, D).

    Raises:
        ValueError: it has none of these shapes.
    """
    if target_weight.dim() == output.dim():
        check_weight_shape(target_weight, output, 'target_weight', 'output')
        return upcast(target_weight)
    return upcast(weight_of_leading(target_weight, output, 'target_weight', 'output'))


def check_sigmas(output: Tensor, sigmas: Optional[Tensor]) -> None:
    """Raises ValueError unless there is one sigma for each keypoint of ``output`` (N, K, 2), or none at all."""
    if sigmas is not None:
        check_size(output, 1, sigmas.size(0), 'output', 'sigmas')


def squared_distances_in_sigmas(
    output: Tensor, target: Tensor, counted: Tensor, sigmas: Optional[Tensor], factor: float
) -> Tensor:
    """|x - t|^2 / (factor sigma)^2 of every keypoint, 0 where it is not ``counted``."""
    mask = counted.unsqueeze(-1)
    difference = keep(output, mask) - keep(target, mask)
    squared = (difference * difference).sum(-1)
    if sigmas is None:
        return squared
    scale = factor * sigmas.to(squared)
    return squared / (scale * scale)


def heatmap_weight(
    target: Tensor, target_weights: Optional[Tensor], mask: Optional[Tensor], skip_empty_channel: bool
) -> Optional[Tensor]:
    """The weight of each pixel: its own or its keypoint's, times its mask, 0 in skipped channels.

    Args:
        target: heatmaps, (N, K, H, W), or with more dimensions after K.
        target_weights: (N, K), or of the shape of ``target``.
        mask: of the shape of ``target``, or that with 1 in place of K.
        skip_empty_channel: whether to skip channels whose target is 0 everywhere.

    Returns:
        A tensor that broadcasts to ``target``, or None for 1.

    Raises:
        ValueError: shapes do not match.
    """
    weight: Optional[Tensor] = None
    if target_weights is not None:
        weight = upcast(weight_of_leading(target_weights, target, 'target_weights', 'target'))
    if mask is not None:
        check_shape_or_one(mask, target, [1], 'mask', 'target')
        weight = upcast(mask) if weight is None else weight * upcast(mask)
    if skip_empty_channel:
        occupied = upcast((target != 0).flatten(2).any(2))
        occupied = weight_of_leading(occupied, target, 'occupied', 'target')
        weight = occupied if weight is None else weight * occupied
    return weight


def visibility_weight(target_weight: Tensor, output: Tensor) -> Tensor:
    """A weight that broadcasts to ``output`` (N, K), given for each sample or each element.

    Raises:
        ValueError: it is neither (N) nor (N, K).
    """
    if target_weight.dim() != 1:
        check_same_shape(target_weight, output, 'target_weight', 'output')
        return target_weight
    check_dim(output, 2, 'output')
    check_leading_shape(target_weight, output, 1, 'target_weight', 'output')
    return target_weight.unsqueeze(1)


def bones_between(x: Tensor, joints: Tensor, parents: Tensor) -> Tensor:
    """The vector from each parent to its joint: (..., B, D), from joints (..., K, D)."""
    return x.index_select(-2, joints.to(x.device)) - x.index_select(-2, parents.to(x.device))


def bones_of(joint_parents: Sequence[int]) -> Tuple[Tensor, Tensor]:
    """The joints that have a parent, and their parents, (B) each. A root is its own parent. For constructors only.

    Raises:
        ValueError: a parent is not a joint.
    """
    last = len(joint_parents) - 1
    for parent in joint_parents:
        if not 0 <= parent <= last:
            raise ValueError(f'joint_parents must be joints from 0 to {last}, got {parent}')
    joints = [joint for joint, parent in enumerate(joint_parents) if joint != parent]
    return torch.tensor(joints, dtype=torch.int64), torch.tensor([joint_parents[j] for j in joints], dtype=torch.int64)
