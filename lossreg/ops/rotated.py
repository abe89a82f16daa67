"""Intersection areas of rotated boxes and polygons, without sorting vertices.

A region is the area under its upper edges minus the area under its lower edges, so an intersection area is a sum of
integrals over edges, each in closed form. No decision hangs on a comparison that rounding could tip, even where corners
or edges coincide, and every step runs on every backend.
"""

from typing import Optional, Tuple

import torch
from torch import Tensor

from lossreg.arith import check_dim, check_leading_shape, check_size, keep, upcast


def common_area_of_boxes(pred: Tensor, target: Tensor) -> Tensor:
    """Intersection area of aligned pairs of rotated boxes.

    In the frame of the target, an edge of ``pred`` contributes the integral of y, clamped between two of the target's
    sides, over the x between the other two.

    Args:
        pred: x, y, w, h and the angle in radians, in rows, (5, N). The signs of w and h do not matter.
        target: the same.

    Returns:
        (N).
    """
    px, py, pw, ph, p_angle = pred.unbind(0)
    tx, ty, tw, th, t_angle = target.unbind(0)
    # all lengths from the centre of pred, along the sides of the target: small numbers where one box is small
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
    # corners counter-clockwise, and the vector from each to the next
    x, y = torch.stack([ax + bx, bx - ax, -ax - bx, ax - bx]), torch.stack([ay + by, by - ay, -ay - by, ay - by])
    dx, dy = (
        torch.stack([-2.0 * ax, -2.0 * bx, 2.0 * ax, 2.0 * bx]),
        torch.stack([-2.0 * ay, -2.0 * by, 2.0 * ay, 2.0 * by]),
    )
    end_x, end_y = x + dx, y + dy
    # the part of each edge between left and right; if there is none, its width is 0
    steep = _is_short(dx)
    run = torch.where(steep, 1.0, dx)
    from_x, to_x = _between(x, left, right), _between(end_x, left, right)
    from_y = y + torch.where(steep, 0.0, (from_x - x) / run).clamp(min=0.0, max=1.0) * dy
    to_y = end_y - torch.where(steep, 0.0, (end_x - to_x) / run).clamp(min=0.0, max=1.0) * dy
    width = torch.where(steep, 0.0, to_x - from_x)
    # upper edges run backwards
    return (-width * _mean_between(from_y, to_y, bottom, top)).sum(0).clamp(min=0.0)


def _is_short(x: Tensor) -> Tensor:
    """Whether a divisor counts as 0, because the derivative divides by its square. No real area is that small."""
    return x.abs() < 1e-12


def _between(x: Tensor, low: Tensor, high: Tensor) -> Tensor:
    return torch.maximum(torch.minimum(x, high), low)


def _mean_between(start: Tensor, end: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """The mean of y clamped to [``low``, ``high``], as y goes linearly from ``start`` to ``end``."""
    first, last = _between(start, low, high), _between(end, low, high)
    rise = end - start
    flat = _is_short(rise)
    # the share beyond a side is its excess over the rise; the mean of the part within is that of its two ends
    beyond = torch.where(flat, 0.0, ((start - first) + (end - last)) / torch.where(flat, 1.0, rise))
    return 0.5 * ((first + last) + (last - first) * beyond)


def quotient_of_areas(part: Tensor, whole: Tensor) -> Tensor:
    """``part / whole``, and 0 where there is no whole."""
    nothing = whole == 0
    return torch.where(nothing, 0.0, part / torch.where(nothing, 1.0, whole))


def common_area_of_polygons(
    from_x: Tensor, from_y: Tensor, to_x: Tensor, to_y: Tensor, other_x: Tensor, other_y: Tensor
) -> Tensor:
    """Intersection area of two polygons of any shape: the first given by its edges in any order, the other by vertices.

    It is -1/2 times the sum, over pairs of edges, of the integral of their distance along y over their common x range,
    with the sign of both directions. It is above 0 where both polygons have the same orientation.

    Args:
        from_x: where the edges start, (E, N). Edges of length 0 contribute nothing.
        from_y: the same.
        to_x: where they end, (E, N).
        to_y: the same.
        other_x: vertices in order, (V, N).
        other_y: the same.

    Returns:
        (N).
    """
    next_x, next_y = rolled(other_x), rolled(other_y)
    ax, ay, bx, by = from_x.unsqueeze(1), from_y.unsqueeze(1), to_x.unsqueeze(1), to_y.unsqueeze(1)
    cx, cy, dx, dy = other_x.unsqueeze(0), other_y.unsqueeze(0), next_x.unsqueeze(0), next_y.unsqueeze(0)
    low = torch.maximum(torch.minimum(ax, bx), torch.minimum(cx, dx))
    high = torch.minimum(torch.maximum(ax, bx), torch.maximum(cx, dx))
    first = _height(ax, ay, bx, by, low) - _height(cx, cy, dx, dy, low)
    last = _height(ax, ay, bx, by, high) - _height(cx, cy, dx, dy, high)
    sign = torch.sign((bx - ax).detach() * (dx - cx).detach())
    return (-0.5 * sign * (high - low).clamp(min=0.0) * _mean_size_between(first, last)).sum(0).sum(0)


def rolled(x: Tensor) -> Tensor:
    """For each row, the next one; the first follows the last."""
    rows = x.unbind(0)
    return torch.stack(rows[1:] + rows[:1])


def _height(from_x: Tensor, from_y: Tensor, to_x: Tensor, to_y: Tensor, x: Tensor) -> Tensor:
    """y of an edge at x, or at its nearer end where x is outside."""
    run = to_x - from_x
    steep = _is_short(run)
    share = torch.where(steep, 0.0, (x - from_x) / torch.where(steep, 1.0, run))
    return from_y + share.clamp(min=0.0, max=1.0) * (to_y - from_y)


def _mean_size_between(start: Tensor, end: Tensor) -> Tensor:
    """The mean of \\|y\\| as y goes linearly from ``start`` to ``end``."""
    one, other = start.abs(), end.abs()
    whole = one + other
    short = _is_short(whole)
    # where the sign changes: (a^2 + b^2) / 2 (a + b), which is (a + b) / 2 - a b / (a + b)
    crossed = torch.where(short | (start * end >= 0), 0.0, one * other / torch.where(short, 1.0, whole))
    return 0.5 * whole - crossed


def next_on_hull(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """For each point, the next vertex of the convex hull, counter-clockwise; the point itself where it is not a vertex.

    All other points are to the left of an edge, or between its ends. Of equal points only the first counts. Decided in
    float64 and without gradient, so that the edges of float32 points always form a closed hull.

    Args:
        x: (P, N).
        y: (P, N).

    Returns:
        Their x and y, (P, N) each.
    """
    px, py = x.detach().double(), y.detach().double()
    from_x, from_y, to_x, to_y = px.unsqueeze(1), py.unsqueeze(1), px.unsqueeze(0), py.unsqueeze(0)
    index = torch.arange(px.size(0), device=px.device)
    earlier = (index.unsqueeze(0) < index.unsqueeze(1)).unsqueeze(2)
    equal = (from_x == to_x) & (from_y == to_y)
    first = ~(equal & earlier).any(1)
    edge = first.unsqueeze(0) & first.unsqueeze(1) & ~equal
    run, rise = to_x - from_x, to_y - from_y
    for other in torch.stack([px, py], 1).unbind(0):
        other_x, other_y = other.unbind(0)
        side = run * (other_y - from_y) - rise * (other_x - from_x)
        between = (other_x - from_x) * (other_x - to_x) + (other_y - from_y) * (other_y - to_y) <= 0
        edge = edge & ((side > 0) | ((side == 0) & between))
    lone = ~edge.any(1)
    return (
        torch.where(edge, x.unsqueeze(0), 0.0).sum(1) + torch.where(lone, x, 0.0),
        torch.where(edge, y.unsqueeze(0), 0.0).sum(1) + torch.where(lone, y, 0.0),
    )


def area_of_edges(from_x: Tensor, from_y: Tensor, to_x: Tensor, to_y: Tensor) -> Tensor:
    """Area of a polygon near the origin, given by its edges, (E, N): above 0 where it runs counter-clockwise; (N)."""
    return 0.5 * (from_x * to_y - from_y * to_x).sum(0)


def counted_points(pred: Tensor, target: Tensor, weight: Optional[Tensor]) -> Tuple[Tensor, Tensor, Optional[Tensor]]:
    """Points and quadrilaterals in full precision, 0 where the weight is 0, and the weight, (N).

    Raises:
        ValueError: shapes do not match.
    """
    check_dim(pred, 2, 'pred')
    check_dim(target, 2, 'target')
    check_size(pred, 1, 18, 'pred', 'coordinates of nine points')
    check_size(target, 1, 8, 'target', 'coordinates of four corners')
    check_leading_shape(target, pred, 1, 'target', 'pred')
    pred, target = upcast(pred), upcast(target)
    if weight is None:
        return pred, target, None
    check_dim(weight, 1, 'weight')
    check_leading_shape(weight, pred, 1, 'weight', 'pred')
    weight = upcast(weight)
    counted = (weight != 0).unsqueeze(1)
    return keep(pred, counted), keep(target, counted), weight


def points_in_rows(points: Tensor) -> Tuple[Tensor, Tensor]:
    """x and y of points (N, 2 P), each (P, N)."""
    xy = points.reshape([-1, points.size(1) // 2, 2])
    x, y = xy.permute(2, 1, 0).contiguous().unbind(0)
    return x, y


def convex_giou(pred: Tensor, target: Tensor) -> Tensor:
    """I / U - (C - U) / C of points (N, 18) and quadrilaterals (N, 8).

    See :func:`lossreg.functional.convex_giou_loss`.
    """
    px, py = points_in_rows(pred)
    tx, ty = points_in_rows(target)
    # shifted near the origin, so that the areas are accurate
    x, y = tx.detach().mean(0), ty.detach().mean(0)
    px, py, tx, ty = px - x, py - y, tx - x, ty - y
    to_x, to_y = next_on_hull(px, py)
    quadrilateral = area_of_edges(tx, ty, rolled(tx), rolled(ty))
    common = common_area_of_polygons(px, py, to_x, to_y, tx, ty) * torch.sign(quadrilateral.detach())
    union = area_of_edges(px, py, to_x, to_y) + quadrilateral.abs() - common
    all_x, all_y = torch.cat([px, tx]), torch.cat([py, ty])
    to_x, to_y = next_on_hull(all_x, all_y)
    hull = area_of_edges(all_x, all_y, to_x, to_y)
    return quotient_of_areas(common, union) - quotient_of_areas(hull - union, hull)
