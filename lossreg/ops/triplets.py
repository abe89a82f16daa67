"""Hinge losses of distances within triplets, given or mined."""

from typing import Optional

import torch
from torch import Tensor

from lossreg.arith import check_at_least, poison, softplus, upcast, vector_length
from lossreg.ops.embeddings import (
    batch_hard_pairs,
    check_embeddings,
    distances_to,
    identity_masks,
    squared_lengths,
    triplets_have_values,
    valid_anchors,
)


def pairwise_distance(x1: Tensor, x2: Tensor, p: float = 2.0, eps: float = 1e-6) -> Tensor:
    r"""Distance of each pair of vectors, with gradient 0 at distance 0.

    .. math::
        d = \Big(\sum_i |x_{1,i} - x_{2,i} + \epsilon|^p\Big)^{1/p}

    Args:
        x1: vectors (..., D).
        x2: vectors of the same shape.
        p: the norm, > 0; infinity is the largest difference.
        eps: added to every difference, as in torch.

    Returns:
        (...).
    """
    difference = upcast(x1) - upcast(x2) + eps
    if p == 2.0:
        return vector_length(difference)
    size = difference.abs()
    if p == 1.0:
        return size.sum(-1)
    check_at_least(x1, x1.dim() - 1, 1, 'anchor', 'this norm')
    if p == torch.inf:
        # ONNX Runtime's maximum drops NaN
        return torch.where(torch.isnan(size).any(-1), torch.nan, size.amax(-1))
    # in units of the largest difference no power overflows; a norm is homogeneous, so the unit needs no gradient
    unit = size.detach().amax(-1)
    unit = torch.where((unit > 0) & (unit < torch.inf), unit, 1.0)
    share = size / unit.unsqueeze(-1)
    nothing = share == 0
    powers = torch.where(nothing, 0.0, torch.where(nothing, 1.0, share).pow(p)).sum(-1)
    equal = powers == 0
    return unit * torch.where(equal, 0.0, torch.where(equal, 1.0, powers).pow(1.0 / p))


def triplet_hinge(
    to_positive: Tensor, to_negative: Tensor, positive_to_negative: Optional[Tensor], margin: float
) -> Tensor:
    r"""The hinge on distances, shared by both losses of given triplets.

    .. math::
        \ell = \max\big(0,\; m + d(a, p) - \min(d(a, n),\, d(p, n))\big)

    Args:
        to_positive: d(a, p), of any shape.
        to_negative: d(a, n).
        positive_to_negative: d(p, n); None leaves it out of the minimum.
        margin: m.

    Returns:
        The losses, of the same shape.
    """
    nearest = to_negative
    if positive_to_negative is not None:
        nearest = torch.minimum(to_negative, positive_to_negative)
    # m + d(a, p) - d(a, n)
    return (margin + to_positive - nearest).clamp(min=0.0)


def batch_hard_hinge(
    inputs: Tensor,
    targets: Tensor,
    margin: float = 0.3,
    soft_margin: bool = False,
    squared: bool = False,
    floor: float = 1e-12,
    skip_invalid: bool = False,
) -> Tensor:
    """Batch-hard triplet loss of each anchor; see :func:`lossreg.functional.batch_hard_triplet_loss`."""
    check_embeddings(inputs, targets, 'inputs', 'targets')
    inputs = upcast(inputs)
    x = inputs.double()
    positive, negative = batch_hard_pairs(x, targets)
    # a row that is not finite has distance NaN to itself, so its farthest positive is NaN
    lengths = squared_lengths(x)
    defined = lengths < torch.inf
    if skip_invalid:
        positives, negatives = identity_masks(targets)
        valid = valid_anchors(positives, negatives)
        positive = torch.where(valid, positive, inputs.size(0))
        negative = torch.where(valid, negative, inputs.size(0))
        # a NaN negative need not be a valid anchor itself
        defined = ~valid | triplets_have_values(lengths, positives, negatives, infinite=True)
    # max d(a, p) - min d(a, n)
    gap = distances_to(x, positive, not squared, floor) - distances_to(x, negative, not squared, floor)
    loss = softplus(gap.to(inputs.dtype)) if soft_margin else (gap + margin).clamp(min=0.0).to(inputs.dtype)
    loss = torch.where(negative == inputs.size(0), 0.0, loss)
    return poison(loss, defined)
