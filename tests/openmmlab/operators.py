"""The compiled operators of mmcv that losses call, in NumPy and shapely: mmcv-lite lacks them, and most need CUDA."""

import numpy as np
import shapely
import torch
from torch import Tensor

VERTICES = 9


def diff_iou_rotated_sort_vertices_forward(vertices: Tensor, mask: Tensor, num_valid: Tensor) -> Tensor:
    """Indices (B, N, 9) of the valid vertices of (B, N, 24, 2), in order around their mean (0, 0), the first repeated.

    The rest of the nine are indices of an invalid vertex, with coordinates 0. Equal vertices count once.
    """
    batch, boxes = mask.shape[:2]
    indices = np.zeros((batch, boxes, VERTICES), np.int32)
    points, valid = vertices.detach().numpy(), mask.numpy()
    for at in np.ndindex(batch, boxes):
        # corners come first, so an invalid one of the 16 intersections serves as padding
        row = np.full(VERTICES, 8 + int(np.argmin(valid[at][8:])), np.int32)
        order = sorted(np.nonzero(valid[at])[0], key=lambda i, at=at: np.arctan2(points[at][i][1], points[at][i][0]))
        order = [i for n, i in enumerate(order) if not any(same(points[at][i], points[at][j]) for j in order[:n])]
        if len(order) >= 3:
            row[: len(order) + 1] = [*order, order[0]]
        indices[at] = row
    return torch.from_numpy(indices)


def same(a: np.ndarray, b: np.ndarray) -> bool:
    return bool(np.abs(a - b).max() <= 1e-9 * np.abs(a).max())


def convex_giou(pointsets: Tensor, polygons: Tensor, output: Tensor) -> None:
    """Writes the GIoU of the hulls of points (N, 18) and polygons (N, 8) into the last column of (N, 19)."""
    for n, (points, polygon) in enumerate(zip(pointsets.detach().numpy(), polygons.numpy(), strict=True)):
        hull = shapely.MultiPoint(points.reshape(-1, 2)).convex_hull
        target = shapely.Polygon(polygon.reshape(-1, 2))
        around = shapely.MultiPoint([*points.reshape(-1, 2), *polygon.reshape(-1, 2)]).convex_hull.area
        common = hull.intersection(target).area
        union = hull.area + target.area - common
        with np.errstate(all='ignore'):
            output[n, -1] = float(np.float64(common) / union - (around - union) / np.float64(around))
