"""GIoU of the convex hull of points and a quadrilateral, and distances of landmarks."""

import numpy as np

from lossreg.oracles.reference import Array, Inputs, Options, reduce
from lossreg.oracles.rotated import convex_giou


@np.errstate(all='ignore')
def bc_convex_giou_loss(call: str, inputs: Inputs, options: Options) -> Array:
    """loss = reduction of w · (1 - (1 - 2 s) GIoU + s D), s = exp(-a / 4), a the ratio of the first two edges.

    D is the mean over the batch of the smooth L1 distances of landmarks: the mean of the points, and the first points
    with the smallest x, the smallest y, the largest x and the largest y.
    """
    points = [row.reshape(-1, 2) for row in inputs['pred']]
    targets = [row.reshape(-1, 2) for row in inputs['target']]
    weight = inputs.get('weight', np.ones(len(points)))
    distances = np.zeros(len(points))
    for n in range(len(points)):
        difference = np.abs(_landmarks(points[n]) - _landmarks(targets[n]))
        distances[n] = np.where(difference < 1, difference**2 / 2, difference - 0.5).sum()
    losses = np.zeros(len(points))
    for n in range(len(points)):
        edges = sorted(np.hypot(*(targets[n][i + 1] - targets[n][i])) for i in (0, 1))
        share = np.exp(-edges[1] / edges[0] / 4) if edges[0] != 0 else 0.0
        losses[n] = 1 - (1 - 2 * share) * convex_giou(points[n], targets[n]) + share * distances.mean()
    return reduce(weight * losses, options, inputs.get('avg_factor'))


def _landmarks(points: Array) -> Array:
    x, y = points.T
    chosen = [points.mean(0), points[x.argmin()], points[y.argmin()], points[x.argmax()], points[y.argmax()]]
    return np.array(chosen)
