"""Helpers of the oracles of rotated boxes and polygons: corners, and areas by clipping a polygon edge by edge."""

import numpy as np

from lossreg.oracles.reference import Array


def corners(box: Array) -> Array:
    """The four corners of a box (x, y, w, h, angle), counter-clockwise, (4, 2)."""
    x, y, w, h, angle = box
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    local = np.array([[w, h], [-w, h], [-w, -h], [w, -h]]) / 2
    result: Array = local @ turn + [x, y]
    return result


def area(polygon: Array) -> float:
    """Area of a polygon, above 0 where it runs counter-clockwise."""
    twice = 0.0
    for here, there in zip(polygon, np.roll(polygon, -1, 0), strict=True):
        twice += here[0] * there[1] - there[0] * here[1]
    return twice / 2


def common_area(polygon: Array, convex: Array) -> float:
    """Intersection area of a polygon and a convex one, by Sutherland and Hodgman's clipping at each edge."""
    origin = convex.mean(0)
    polygon, convex = polygon - origin, convex - origin
    if area(convex) == 0:
        return 0.0
    if area(convex) < 0:
        convex = convex[::-1]
    for start, end in zip(convex, np.roll(convex, -1, 0), strict=True):
        along = end - start
        side = along[0] * (polygon[:, 1] - start[1]) - along[1] * (polygon[:, 0] - start[0])
        kept = []
        for i in range(len(polygon)):
            j = (i + 1) % len(polygon)
            if side[i] >= 0:
                kept.append(polygon[i])
            if side[i] * side[j] < 0:
                kept.append(polygon[i] + (polygon[j] - polygon[i]) * (side[i] / (side[i] - side[j])))
        if len(kept) < 3:
            return 0.0
        polygon = np.array(kept)
    return abs(area(polygon))


def convex_hull(points: Array) -> Array:
    """Vertices of the convex hull, counter-clockwise: the lower and the upper chain of the sorted points (Andrew)."""
    ordered = sorted({(float(x), float(y)) for x, y in points})
    if len(ordered) < 3:
        return np.array(ordered)
    chains = []
    for way in (ordered, ordered[::-1]):
        chain: list[tuple[float, float]] = []
        for x, y in way:
            while len(chain) > 1 and _turn(chain[-2], chain[-1], (x, y)) <= 0:
                chain.pop()
            chain.append((x, y))
        chains += chain[:-1]
    return np.array(chains)


def _turn(a: tuple[float, float], b: tuple[float, float], c: tuple[float, float]) -> float:
    """Above 0 where the path from a to b to c turns left."""
    return (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0])


def convex_giou(points: Array, quadrilateral: Array) -> float:
    """I / U - (C - U) / C, with C the area of the hull of both; 0 / 0 is 0."""
    if np.isnan(points).any() or np.isnan(quadrilateral).any():
        return np.nan
    origin = quadrilateral.mean(0)
    points, quadrilateral = points - origin, quadrilateral - origin
    hull = convex_hull(points)
    common = common_area(hull, quadrilateral) if len(hull) > 2 else 0.0
    union = (area(hull) if len(hull) > 2 else 0.0) + abs(area(quadrilateral)) - common
    around = convex_hull(np.concatenate([points, quadrilateral]))
    enclosed = area(around) if len(around) > 2 else 0.0
    giou = common / union if union != 0 else 0.0
    return giou - (enclosed - union) / enclosed if enclosed != 0 else giou
