"""What the oracles of rotated boxes and polygons share: corners, and areas by clipping a polygon edge by edge."""

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
    """Area within a polygon, above 0 where it runs counter-clockwise."""
    twice = 0.0
    for here, there in zip(polygon, np.roll(polygon, -1, 0), strict=True):
        twice += here[0] * there[1] - there[0] * here[1]
    return twice / 2


def common_area(polygon: Array, convex: Array) -> float:
    """Area of the polygon within a convex one, which clips it with each of its edges (Sutherland and Hodgman)."""
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
