"""Areas that rotated boxes and polygons have in common, without sorting vertices.

A region is where the edges above are less the edges below: the area of what it has in common with another one is a sum
of integrals over edges, each a closed form. So nothing is decided by a comparison that rounding could tip, whether
corners or edges coincide or not, and every step runs on every backend.
"""

import torch
from torch import Tensor

SHORT = 1e-12
"""Differences that count as 0 in divisions: their squares are within float32, and no area is as small."""


def common_area_of_boxes(pred: Tensor, target: Tensor) -> Tensor:
    """Area common to aligned pairs of rotated boxes.

    In the frame of the target, an edge of ``pred`` covers the integral of y, clamped to the target's sides, over the x
    between the others.

    Args:
        pred: x, y, w, h and the angle in radians, in rows, (5, N). The signs of sizes do not matter.
        target: the same.

    Returns:
        (N).
    """
    px, py, pw, ph, p_angle = pred.unbind(0)
    tx, ty, tw, th, t_angle = target.unbind(0)
    # all lengths from the centre of pred, along the sides of the target: near numbers where one box is small
    cos, sin = torch.cos(t_angle), torch.sin(t_angle)
    x, y = tx - px, ty - py
    x, y = cos * x + sin * y, cos * y - sin * x
    half_width, half_height = 0.5 * tw.abs(), 0.5 * th.abs()
    left, right = x - half_width, x + half_width
    bottom, top = y - half_height, y + half_height
    turn = p_angle - t_angle
    cos, sin = 0.5 * torch.cos(turn), 0.5 * torch.sin(turn)
    a, b = pw.abs(), ph.abs()
    ax, ay, bx, by = cos * a, sin * a, -sin * b, cos * b
    # corners counter-clockwise, and the way from each to the next
    x, y = torch.stack([ax + bx, bx - ax, -ax - bx, ax - bx]), torch.stack([ay + by, by - ay, -ay - by, ay - by])
    dx, dy = (
        torch.stack([-2.0 * ax, -2.0 * bx, 2.0 * ax, 2.0 * bx]),
        torch.stack([-2.0 * ay, -2.0 * by, 2.0 * ay, 2.0 * by]),
    )
    end_x, end_y = x + dx, y + dy
    # the part of each edge between left and right; without one its width is 0, wherever it ends
    steep = dx.abs() < SHORT
    run = torch.where(steep, 1.0, dx)
    from_x, to_x = _between(x, left, right), _between(end_x, left, right)
    from_y = y + torch.where(steep, 0.0, (from_x - x) / run).clamp(min=0.0, max=1.0) * dy
    to_y = end_y - torch.where(steep, 0.0, (end_x - to_x) / run).clamp(min=0.0, max=1.0) * dy
    width = torch.where(steep, 0.0, to_x - from_x)
    # upper edges run backwards
    return (-width * _mean_between(from_y, to_y, bottom, top)).sum(0).clamp(min=0.0)


def _between(x: Tensor, low: Tensor, high: Tensor) -> Tensor:
    return torch.maximum(torch.minimum(x, high), low)


def _mean_between(start: Tensor, end: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """The mean of y, clamped to ``low`` and ``high``, on the way from ``start`` to ``end``."""
    first, last = _between(start, low, high), _between(end, low, high)
    rise = end - start
    flat = rise.abs() < SHORT
    # the part beyond a side is as long as its excess is of the rise; within, the mean is that of both ends
    beyond = torch.where(flat, 0.0, ((start - first) + (end - last)) / torch.where(flat, 1.0, rise))
    return 0.5 * ((first + last) + (last - first) * beyond)


def quotient_of_areas(part: Tensor, whole: Tensor) -> Tensor:
    """``part / whole``, and 0 where there is no whole."""
    nothing = whole == 0
    return torch.where(nothing, 0.0, part / torch.where(nothing, 1.0, whole))
