"""Losses by name, each called separately."""

from collections.abc import Mapping

from lossreg.oracles.reference import Array, Inputs, Options


def combined_loss(call: str, inputs: Inputs, options: Options) -> Array | Mapping[str, Array]:
    """loss = that of the loss named in the call, ``<loss>.<its own call>``, by its own oracle."""
    name, _, own_call = call.partition('.')
    loss = options['losses'][name]
    found: Array | Mapping[str, Array] = loss['oracle'](
        own_call, {key.removeprefix(f'{name}.'): x for key, x in inputs.items()}, loss
    )
    return found
