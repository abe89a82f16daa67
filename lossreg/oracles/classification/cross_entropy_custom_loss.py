"""Cross-entropy that tells a box head its number of channels."""

from lossreg.oracles.classification.cross_entropy_loss import cross_entropy_loss
from lossreg.oracles.reference import Array, Inputs, Options


def cross_entropy_custom_loss(call: str, inputs: Inputs, options: Options) -> Array:
    """loss = the cross-entropy without label smoothing."""
    return cross_entropy_loss(call, inputs, {**options, 'label_smoothing': 0.0})
