"""Chamfer distance of two sets of points."""

from collections.abc import Callable

import numpy as np

from lossreg.oracles.reference import Array, Inputs, Options, reduce

RHO: dict[str, Callable[[Array], Array]] = {
    'l2': lambda x: x**2,
    'l1': np.abs,
    'smooth_l1': lambda x: np.where(np.abs(x) < 1, x**2 / 2, np.abs(x) - 0.5),
}


@np.errstate(all='ignore')
def chamfer_distance(call: str, inputs: Inputs, options: Options) -> dict[str, Array]:
    """loss = reduction of w_i · min_j Σ_c ρ(a_ic - b_jc), from the source to the target and back; w is per point."""
    sets = {'source': inputs['source'], 'target': inputs['target']}
    found = {}
    for (here, there), weight, factor in (
        (('source', 'target'), 'src_weight', 'loss_src_weight'),
        (('target', 'source'), 'dst_weight', 'loss_dst_weight'),
    ):
        batch, count, _ = sets[here].shape
        weights = np.broadcast_to(inputs.get(weight, np.ones((batch, 1))), (batch, count))
        losses = np.zeros((batch, count))
        for b, i in np.ndindex(batch, count):
            if weights[b, i] != 0:
                distances = [RHO[options['mode']](sets[here][b, i] - point).sum() for point in sets[there][b]]
                losses[b, i] = weights[b, i] * np.min(distances)
        found[f'loss_{here}'] = reduce(losses, {**options, 'loss_weight': options[factor]})
    return found
