"""Penalty for points outside their quadrilateral."""

import numpy as np

from lossreg.oracles.reference import Array, Inputs, Options


@np.errstate(all='ignore')
def spatial_border_loss(call: str, inputs: Inputs, options: Options) -> Array:
    """loss = mean of 0.2 · distance from the centre over points outside, / avg_factor or the number of weights > 0."""
    distances = []
    for points, corners in zip(inputs['pts'].reshape(-1, 9, 2), inputs['gt_bboxes'].reshape(-1, 4, 2), strict=True):
        centre = (corners[0] + corners[2]) / 2
        for point in points:
            twice = np.zeros(4)
            for i in range(4):
                a, b = corners[i] - point, corners[(i + 1) % 4] - point
                twice[i] = a[0] * b[1] - a[1] * b[0]
            if not (np.all(twice >= 0.01) or np.all(twice <= -0.01)):
                distances.append(0.2 * np.sqrt(((point - centre) ** 2).sum()))
    mean = np.sum(distances) / len(distances) if distances else 0.0
    weight = inputs['weight']
    count = np.nan if np.isnan(weight).any() else (weight > 0).sum()
    factor = inputs.get('avg_factor', count + 1e-6 if count != 0 else 0.0)
    return np.array([options['loss_weight'] * (mean / factor if factor != 0 else 0.0)])
