"""A weighted sum of losses and penalties."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from lossreg.oracles.reference import Array, Inputs, Options


def composite_loss(call: str, inputs: Inputs, options: Options) -> dict[str, Array]:
    """loss = Σ_i w_i ℓ_i + Σ_j v_j Σ_x Φ_j(x); also each unweighted term. Each is computed by its own oracle."""
    parts: dict[str, Array] = {}
    total: Any = 0.0
    for name, term in {**options['losses'], **(options['penalties'] or {})}.items():
        is_penalty = name not in options['losses']
        parts[name] = np.asarray(sum(_one(term, names, inputs) for names in _uses(term, is_penalty)), np.float64)
        weight = term.get('weight', 1.0)
        total = total + (inputs[weight] if isinstance(weight, str) else weight) * parts[name]
    return {'loss': np.asarray(total), **parts}


def _uses(term: Options, is_penalty: bool) -> list[Mapping[str, str]]:
    """The objective's names of the term's inputs, for each time the term is called."""
    return [{'input': name} for name in term['inputs']] if is_penalty else [term['inputs']]


def _one(term: Options, names: Mapping[str, str], inputs: Inputs) -> np.float64:
    given = {own: inputs[name] for own, name in names.items()}
    value = term['loss']['oracle'](term.get('call', ''), given, term['loss'])
    return np.float64(np.sum(value['loss'] if isinstance(value, Mapping) else value))
