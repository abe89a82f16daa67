"""Converts weights from the shapes that hosts use to shapes that broadcast."""

from typing import Optional

import torch
from torch import Tensor

from lossreg.arith import check_dim, check_leading_shape, check_same_shape, is_eager, poison


def weight_per_element(weight: Tensor, like: Tensor, weight_name: str, like_name: str) -> Tensor:
    """A weight that broadcasts to ``like``, given in the shape of ``like``, in that flattened, or one per sample.

    Raises:
        ValueError: it has none of these shapes.
    """
    if weight.dim() == like.dim():
        check_same_shape(weight, like, weight_name, like_name)
        return weight
    check_dim(weight, 1, weight_name)
    if weight.size(0) == like.numel():
        return weight.view(like.shape)
    check_leading_shape(weight, like, 1, weight_name, like_name)
    return weight.view([-1] + [1] * (like.dim() - 1))


def weight_of_leading(weight: Tensor, like: Tensor, weight_name: str, like_name: str) -> Tensor:
    """A weight given for the first dimensions of ``like``, or all of them, reshaped to broadcast to ``like``.

    Raises:
        ValueError: it does not have the shape of these dimensions.
    """
    check_leading_shape(weight, like, weight.dim(), weight_name, like_name)
    return weight.view(list(weight.shape) + [1] * (like.dim() - weight.dim()))


def weight_of_channels(weight: Tensor, like: Tensor, each: int, weight_name: str, like_name: str) -> Tensor:
    """A weight (N, K), each entry for ``each`` channels of ``like``, (N, each K, ...), reshaped to broadcast to
    ``like``.

    Raises:
        ValueError: it does not have that shape; NaN in exported form, where a comparison would rule out K = 1.
    """
    check_dim(weight, 2, weight_name)
    check_leading_shape(weight, like, 1, weight_name, like_name)
    is_compared = True
    if not torch.jit.is_scripting():  # type: ignore[attr-defined]
        is_compared = is_eager(weight)
    if is_compared and weight.size(1) * each != like.size(1):
        raise ValueError(
            f'{weight_name} has shape {list(weight.shape)} and {like_name} has shape {list(like.shape)}; '
            f'dimension 1 of the second must be {each} times that of the first'
        )
    weighed = torch.zeros([], dtype=torch.int64, device=weight.device) + weight.size(1) * each
    keypoint = torch.arange(like.size(1), device=weight.device) // each
    weight = poison(weight, weighed == like.size(1)).index_select(1, keypoint)
    return weight.view(list(weight.shape) + [1] * (like.dim() - 2))


def weight_if_used(weight: Optional[Tensor], used: bool, name: str) -> Optional[Tensor]:
    """``weight`` if ``used``, else None, whatever was given: mmpose's ``use_target_weight``.

    Raises:
        ValueError: it is used but missing.
    """
    if not used:
        return None
    if weight is None:
        raise ValueError(f'{name} is missing; give it, or build the loss with use_target_weight=False')
    return weight
