"""Resizing and blurring of images by one matrix per axis.

A matrix product exports with its gradient for any size, and does not depend on how a runtime resizes. Values that are
not finite spread over a row and a column of the result.
"""

import torch
from torch import Tensor

from lossreg.ops.products import matmul


def resample(x: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """(..., H, W) to (..., K, L), by matrices (K, H) and (L, W)."""
    return matmul(matmul(rows, x), columns.t())


def linear_resizing(size: int, new_size: int, like: Tensor) -> Tensor:
    """The matrix of linear interpolation, (new_size, size), where the first and the last points stay where they are."""
    steps = torch.zeros([], dtype=torch.float64, device=like.device) + (new_size - 1)
    # the position of each new point among the old ones; it interpolates between the two nearest
    place = _points(new_size, like) * (size - 1) / steps.clamp(min=1.0)
    return (1.0 - (place.unsqueeze(1) - _points(size, like)).abs()).clamp(min=0.0).to(like.dtype)


def cubic_enlargement(size: int, new_size: int, factor: int, like: Tensor) -> Tensor:
    """The matrix of cubic convolution with a = -3/4, (new_size, size), with the outermost points repeated outside.

    Points are the centres of equal intervals: a ``factor`` of 2 puts a new one on either side of each old one.
    ``new_size`` is ``size * factor``; a trace that computed it would ask for sizes of 2 and more.
    """
    points = _points(size, like)
    place = (_points(new_size, like) + 0.5) / factor - 0.5
    enlargement = torch.zeros_like(place.unsqueeze(1) * points)
    for k in (-1, 0, 1, 2):
        at = place.floor() + k
        inside = torch.minimum(at.clamp(min=0.0), torch.zeros_like(at) + (size - 1))
        weight = _cubic((place - at).abs()).unsqueeze(1)
        enlargement = enlargement + torch.where(inside.unsqueeze(1) == points, weight, 0.0)
    return enlargement.to(like.dtype)


def _cubic(d: Tensor) -> Tensor:
    """Keys' kernel at a distance of up to 2."""
    near = (1.25 * d - 2.25) * d * d + 1.0
    return torch.where(d <= 1.0, near, -0.75 * (((d - 5.0) * d + 8.0) * d - 4.0))


def gaussian_blur(size: int, sigma: float, radius: int, like: Tensor) -> Tensor:
    """The matrix of a Gaussian blur, (size, size), with weights up to ``radius`` that sum to 1, and zero padding."""
    points = _points(size, like)
    distance = (points.unsqueeze(1) - points).abs()
    weights = _bell(_points(2 * radius + 1, like) - radius, sigma).sum()
    return torch.where(distance <= radius, _bell(distance, sigma) / weights, 0.0).to(like.dtype)


def _bell(distance: Tensor, sigma: float) -> Tensor:
    return torch.exp(-(distance * distance) / (2.0 * sigma * sigma))


def _points(size: int, like: Tensor) -> Tensor:
    return torch.arange(size, dtype=torch.float64, device=like.device)
