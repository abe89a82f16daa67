"""Every variant of every registered loss and its units, built once per process.

They are shared, so a test that changes a loss must copy it first, or build its own with ``variants_of``.
"""

from lossreg.registry import load_losses
from lossreg.request import variants_of

LOSSES = load_losses()
REQUESTS = {name: variants_of(name) for name in LOSSES}
UNITS = {name: [unit for request in requests for unit in request.units()] for name, requests in REQUESTS.items()}
"""By loss: each call of each variant, without and with all optional inputs."""

DEFAULTS = {name: [unit for unit in units if unit.variant == 'default'] for name, units in UNITS.items()}
CALLS = {name: list({unit.call.name: unit for unit in units}.values()) for name, units in UNITS.items()}
"""By loss: each call once, with all optional inputs, in the last variant that has it."""


def label(unit):
    """A unit's name in a list of failures."""
    present = '+'.join(i.name for i in unit.inputs if i.optional) or 'required'
    return f'{unit.name}-{unit.variant}-{unit.call.name}-{present}'
