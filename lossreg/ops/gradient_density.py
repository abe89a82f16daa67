"""The density of gradient lengths, by which the GHM losses weight elements."""

from typing import Optional, Tuple

import torch
from torch import Tensor

from lossreg.arith import keep
from lossreg.ops.reductions import average


def harmonised_weights(
    length: Tensor, counted: Tensor, edges: Tensor, number: Tensor, acc_sum: Optional[Tensor], momentum: float
) -> Tuple[Tensor, Tensor]:
    """The weight of each element by the density of gradients of similar length, and the density of each bin.

    Args:
        length: of each gradient, >= 0, of any shape.
        counted: which elements count; the weight of all others is 0.
        edges: of the bins, ascending, (B + 1).
        number: the numerator of the weights; the denominator is the density times the number of nonempty bins.
        acc_sum: the densities before the batch, (B), if they are a moving average.
        momentum: the momentum of that average.

    Returns:
        The weights, of the shape of ``length``, and the densities after the batch, (B).
    """
    bins = edges.numel() - 1
    edges = edges.to(length)
    known = keep(length, counted & (length == length))
    # the bins are equally wide, so multiplication finds the bin or, by rounding, its neighbour
    at = (known * bins).clamp(max=bins - 0.5).long()
    at = at + (known >= edges[at + 1]).long() - (known < edges[at]).long()
    inside = counted & (length == length) & (at >= 0) & (at < bins)
    at = at.clamp(min=0, max=bins - 1).flatten()
    counts = torch.zeros_like(edges[1:], dtype=torch.int64).scatter_add(0, at, inside.flatten().long())
    seen = counts > 0
    density = counts.to(length.dtype)
    if acc_sum is not None:
        acc_sum = acc_sum.to(length.dtype).detach()
        density = torch.where(seen, momentum * acc_sum + (1.0 - momentum) * density, acc_sum)
    # number / S / M; a density of 0, which only momentum=1 keeps, gives no weight
    of_bins = average(torch.where(seen, number, 0.0), density * seen.sum())
    return torch.where(inside, of_bins[at].view(length.shape), 0.0), density


def equal_edges(bins: int, last: float) -> Tensor:
    """i / B for i from 0 to B - 1, and ``last``."""
    return torch.cat([torch.arange(bins).float() / bins, torch.tensor([last])])
