"""Cross-entropies over classes: of class indices, of probabilities, and of decisions."""

from torch import Tensor

from lossreg.ops.reductions import average


def accuracy(scores: Tensor, label: Tensor, counted: Tensor) -> Tensor:
    """How many per cent of the ``counted`` rows have their largest score at the label; 0 where none is counted."""
    right = counted & (scores.argmax(1) == label)
    return average(100.0 * right.sum().to(scores.dtype), counted.sum().to(scores.dtype))
