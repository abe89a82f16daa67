"""Measures of aligned pairs of boxes, shared by the box losses.

Losses take boxes as (N, 4). Here a box is a pair of corners, each (2, N): x and y in rows, so that every coordinate is
contiguous. A size is also (2, N): the width and the height, which may be negative.
"""

import math
from typing import Optional

import torch
from torch import Tensor

from lossreg.arith import check_dim, check_leading_shape, check_same_shape, check_size, keep, upcast


def check_box_format(box_format: str) -> None:
    """Raises ValueError unless ``box_format`` is ``xyxy``, ``xywh`` or ``cxcywh``."""
    if box_format != 'xyxy' and box_format != 'xywh' and box_format != 'cxcywh':
        raise ValueError(f"box_format must be 'xyxy', 'xywh' or 'cxcywh', got '{box_format}'")


def check_boxes(pred: Tensor, target: Tensor, size: int = 4) -> None:
    """Raises ValueError unless both are (N, ``size``), with the same N."""
    check_dim(pred, 2, 'pred')
    check_size(pred, 1, size, 'pred', 'box coordinates')
    check_same_shape(target, pred, 'target', 'pred')


def counted_boxes(
    pred: Tensor, target: Tensor, weight: Optional[Tensor], size: int = 4
) -> tuple[Tensor, Tensor, Optional[Tensor]]:
    """Both boxes, 0 where the weight is 0, and one weight per box, from (N) or as the mean of (N, ``size``).

    Raises:
        ValueError: shapes do not match.
    """
    check_boxes(pred, target, size)
    pred, target = upcast(pred), upcast(target)
    if weight is None:
        return pred, target, None
    check_leading_shape(weight, pred, weight.dim(), 'weight', 'pred')
    weight = upcast(weight)
    weight = weight.mean(-1) if weight.dim() == 2 else weight
    counted = weight != 0
    # transposed like the corners: otherwise a pt2 file of torch 2.11 refuses a single box
    return keep(pred.t(), counted).t(), keep(target.t(), counted).t(), weight


def corners(boxes: Tensor, box_format: str) -> tuple[Tensor, Tensor]:
    """The first corner (x1, y1) and the second (x2, y2) of (N, 4) boxes.

    Raises:
        ValueError: unknown ``box_format``.
    """
    check_box_format(box_format)
    # a single transposition, so that every coordinate is contiguous
    first, second = boxes.t().contiguous().view([2, 2, -1]).unbind(0)
    if box_format == 'xywh':
        second = first + second
    if box_format == 'cxcywh':
        half = 0.5 * second
        first, second = first - half, first + half
    return first, second


def area(size: Tensor) -> Tensor:
    """Width times height."""
    width, height = size.unbind(0)
    return width * height


def squared_length(offset: Tensor) -> Tensor:
    """x^2 + y^2."""
    x, y = offset.unbind(0)
    return x * x + y * y


def inner_size(p1: Tensor, p2: Tensor, t1: Tensor, t2: Tensor) -> Tensor:
    """Size of the intersection; where boxes are apart, minus the gap between them."""
    return torch.minimum(p2, t2) - torch.maximum(p1, t1)


def hull_size(p_size: Tensor, t_size: Tensor, inner: Tensor) -> Tensor:
    """Size of the smallest box around both, at least 0."""
    # max(x2, u2) - min(x1, u1) = (x2 - x1) + (u2 - u1) - (min(x2, u2) - max(x1, u1))
    return (p_size + t_size - inner).clamp(min=0.0)


def intersection_and_union(p_size: Tensor, t_size: Tensor, inner: Tensor) -> tuple[Tensor, Tensor]:
    """The areas I and U = area of one + area of the other - I."""
    intersection = area(inner.clamp(min=0.0))
    return intersection, area(p_size) + area(t_size) - intersection


def empty_area(p_size: Tensor, t_size: Tensor, inner: Tensor, intersection: Tensor) -> Tensor:
    """E - U: the part of the smallest enclosing box that neither covers; exactly 0 where one box is inside the other.

    With i the signed ``inner``: (w_t - i_w)(h_p - i_h) + (w_p - i_w)(h_t - i_h) - (i_w i_h - I), with little
    cancellation.
    """
    p_width, p_height = (p_size - inner).unbind(0)
    t_width, t_height = (t_size - inner).unbind(0)
    return t_width * p_height + p_width * t_height - (area(inner) - intersection)


def centre_offset(p1: Tensor, p2: Tensor, t1: Tensor, t2: Tensor) -> Tensor:
    """The vector from the centre of the first box to that of the second."""
    # differences of close coordinates are exact, differences of their sums are not
    return 0.5 * ((t1 - p1) + (t2 - p2))


def aspect_difference(p_size: Tensor, t_size: Tensor, eps: float) -> Tensor:
    """v = 4 / pi^2 (atan(w_t / (h_t + eps)) - atan(w_p / (h_p + eps)))^2, from 0 to 1."""
    p_width, p_height = p_size.unbind(0)
    t_width, t_height = t_size.unbind(0)
    difference = torch.atan(t_width / (t_height + eps)) - torch.atan(p_width / (p_height + eps))
    return 4.0 / math.pi**2 * (difference * difference)


def aspect_trade_off(iou: Tensor, v: Tensor) -> Tensor:
    """v / (1 - IoU + v) where IoU > 1/2, else 0; without gradient."""
    v = v.detach()
    # rounding may put IoU above 1; where the sum is 0, so is v
    whole = (1.0 - iou.detach()).clamp(min=0.0) + v
    return torch.where(iou > 0.5, v / torch.where(whole == 0, 1.0, whole), 0.0)


def smoothed(x: Tensor, point: float) -> Tensor:
    """x^2 / (2 point) below ``point``, x - point / 2 from there on; x itself where ``point`` is 0."""
    if point == 0.0:
        return x
    return torch.where(x < point, 0.5 / point * (x * x), x - 0.5 * point)


def check_iou_mode(mode: str) -> None:
    """Raises ValueError unless ``mode`` is ``log``, ``linear`` or ``square``."""
    if mode != 'log' and mode != 'linear' and mode != 'square':
        raise ValueError(f"mode must be 'log', 'linear' or 'square', got '{mode}'")


def siou(pred: Tensor, target: Tensor, eps: float, neg_gamma: bool, box_format: str, smallest_hull: float) -> Tensor:
    """SIoU of boxes in single or double precision; an enclosing box counts as at least ``smallest_hull`` in size."""
    p1, p2 = corners(pred, box_format)
    t1, t2 = corners(target, box_format)
    p_size, t_size, inner = p2 - p1, t2 - t1, inner_size(p1, p2, t1, t2)
    intersection, union = intersection_and_union(p_size, t_size, inner)
    iou = intersection / (union + eps)
    way = centre_offset(p1, p2, t1, t2) + eps
    way_x, way_y = way.abs().unbind(0)
    # the smallest normal number guards against a distance that eps makes exactly 0
    angle = 2.0 * way_x * way_y / squared_length(way).clamp(min=1.1754943508222875e-38)
    rho = way / hull_size(p_size, t_size, inner).clamp(min=smallest_hull)
    gamma = angle - 2.0 if neg_gamma else 2.0 - angle
    # an infinite power would make the gradient NaN where SIoU is clamped; up to 80 it is clamped as well
    distance = (1.0 - torch.exp((gamma * (rho * rho)).clamp(max=80.0))).sum(0)
    p_width, p_height = p_size.unbind(0)
    t_width, t_height = t_size.unbind(0)
    shape = _shape_cost(p_width, t_width) + _shape_cost(p_height + eps, t_height + eps)
    return (iou - 0.5 * (distance + shape)).clamp(min=-1.0, max=1.0)


def _shape_cost(p: Tensor, t: Tensor) -> Tensor:
    """(1 - exp(-|p - t| / max(p, t)))^4: 0 where both are 0, 1 where the larger is.

    Below 1e-36 it has no gradient, which would overflow.
    """
    tiny = torch.maximum(p, t) < 1e-36
    # scaled up, because TorchScript multiplies a masked gradient by 0, so it must not be infinite
    p, t = torch.where(tiny, 1e30 * p.detach(), p), torch.where(tiny, 1e30 * t.detach(), t)
    largest = torch.maximum(p, t)
    # |p - t| / max = 1 - min / max, whose gradient is not a difference of large numbers
    omega = torch.where(largest == 0, 0.0, 1.0 - torch.minimum(p, t) / torch.where(largest == 0, 1.0, largest))
    # of a size of 0 and one below 0 it is infinite
    omega = torch.where((largest == 0) & (p != t), torch.inf, omega)
    square = (1.0 - torch.exp(-omega)).square()
    return square * square
