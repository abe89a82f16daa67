"""Squared error of similarities with margins and mined negatives, by its other name."""

from lossreg.oracles.reference import Array, Inputs, Options
from lossreg.oracles.regression.margin_l2_loss import margin_l2_loss


def l2_loss(call: str, inputs: Inputs, options: Options) -> Array:
    """loss = that of ``MarginL2Loss``."""
    return margin_l2_loss(call, inputs, options)
