"""Distances between the rows of a batch, and mining of triplets from them.

All choices (which positive, which negative, which triplets count) are made in float64 and without gradient. A float64
product separates near-duplicates, ignores the caller's autocast, and gives the same choices in every runtime. No tensor
here is larger than a few times (N, N) or (N, D).
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from lossreg.arith import check_dim, check_leading_shape, is_plain_eager, keep
from lossreg.ops.closed_form import gradient_alone
from lossreg.ops.reductions import total


def check_embeddings(embeddings: Tensor, identities: Tensor, embeddings_name: str, identities_name: str) -> None:
    """Raises ValueError unless these are (N, D) and (N)."""
    check_dim(embeddings, 2, embeddings_name)
    check_dim(identities, 1, identities_name)
    check_leading_shape(identities, embeddings, 1, identities_name, embeddings_name)


def squared_lengths(x: Tensor) -> Tensor:
    """|x_i|^2 as float64, without gradient: NaN or infinite where a row is not finite, and only there."""
    x = x.detach().double()
    return (x * x).sum(1)


def pairwise_squared_distances(x: Tensor) -> Tensor:
    """|x_i - x_j|^2 for all pairs of rows, (N, N) as float64, differentiable.

    Computed as |x_i|^2 + |x_j|^2 - 2 x_i x_j, whose error in float64 is about 1e-16 of the squared lengths: for rows
    that are 1e-5 of their length apart, 1e-5 of their distance. Rows closer than 3e-7 of their length, which float32
    barely distinguishes, are at distance exactly 0. A row that is not finite has infinite or NaN distance to all rows.
    """
    reach = squared_lengths(x)
    # before the product, where NaN would reach the gradient of other rows
    x = keep(x.double(), (reach < torch.inf).unsqueeze(1))
    length = (x * x).sum(1)
    # scaled before the product: cheaper, and onnxruntime 1.16 cannot run a float64 product of a transposed tensor
    d = length.unsqueeze(1) + length.unsqueeze(0) + x @ (x.t() * -2.0)
    reach = reach.unsqueeze(1) + reach.unsqueeze(0)
    d = torch.where(d <= reach * 1e-13, 0.0, d)
    return torch.where(reach < torch.inf, d, reach)


def mining_distances(squared: Tensor) -> Tensor:
    """Squared distances for mining: rows at distance 0 from each other have bitwise equal distances to all others.

    A product's rounding differs from row to row, so equal rows would be ranked arbitrarily. Values that are not finite
    become 1e300, for sorting.
    """
    squared = squared.detach()
    index = torch.arange(squared.size(0), device=squared.device)
    equal = (squared == 0) | (index.unsqueeze(1) == index.unsqueeze(0))
    # the first row equal to each; an extra column of 0, so that there is always something to choose from
    first = F.pad(torch.where(equal, index - index.size(0), 0), [0, 1]).amin(1) + index.size(0)
    chosen = squared.index_select(0, first).index_select(1, first)
    return torch.where(chosen < torch.inf, chosen, 1e300)


def distances_of(squared: Tensor, root: bool, floor: float = 1e-12) -> Tensor:
    """sqrt(max(d^2, floor)) if ``root``, else d^2. Below the floor the gradient is 0."""
    return squared.clamp(min=floor).sqrt() if root else squared


def identity_masks(identities: Tensor) -> tuple[Tensor, Tensor]:
    """Which rows are positives of each anchor, except itself, and which are negatives: (N, N) each."""
    same = _have_same_identity(identities)
    index = torch.arange(identities.size(0), device=identities.device)
    return same & (index.unsqueeze(1) != index.unsqueeze(0)), ~same


def _have_same_identity(identities: Tensor) -> Tensor:
    """Which rows have the same identity, (N, N). Integers become int64: not every backend compares every dtype."""
    if not identities.is_floating_point():
        identities = identities.long()
    return identities.unsqueeze(1) == identities.unsqueeze(0)


def valid_anchors(positive: Tensor, negative: Tensor) -> Tensor:
    """Which anchors have another positive and a negative, (N)."""
    return (positive.sum(1) > 0) & (negative.sum(1) > 0)


def triplets_have_values(lengths: Tensor, positive: Tensor, negative: Tensor, infinite: bool) -> Tensor:
    """Whether all valid triplets give numbers, (): no row of a triplet is NaN.

    With ``infinite``, no anchor may be infinite either: it is equally far from everything, and inf - inf is NaN.

    Args:
        lengths: from :func:`squared_lengths`.
        positive: from :func:`identity_masks`.
        negative: the same.
        infinite: whether infinite anchors are excluded.
    """
    anchor = valid_anchors(positive, negative)
    lost = ~(lengths < torch.inf) if infinite else torch.isnan(lengths)
    seen = (negative & anchor.unsqueeze(1)).sum(0) > 0
    return ((anchor & lost) | (seen & torch.isnan(lengths))).sum() == 0


def ascending_order(x: Tensor) -> Tensor:
    """Indices that sort each row of ``x``; ties keep the lower index first."""
    if torch.jit.is_scripting():  # type: ignore[attr-defined]
        return torch.sort(x, stable=True, dim=1, descending=False)[1]
    return _ascending_order(x)


@torch.jit.unused
def _ascending_order(x: Tensor) -> Tensor:
    # The exporter has no stable sort, but exports the unstable one as TopK, which takes the lower index first.
    if x.device.type == 'cpu' and not is_plain_eager(x):
        return torch.sort(x, dim=1)[1]
    return torch.sort(x, stable=True, dim=1)[1]


def counted_up_to(order: Tensor, counted: Tensor) -> Tensor:
    """The number of ``counted`` entries of its row up to each entry in ``order``, int64, without an N^3 tensor.

    Args:
        order: from :func:`ascending_order`, (N, M).
        counted: bool, (N, M).
    """
    counts = counted.to(torch.int64).gather(1, order).cumsum(1)
    return torch.zeros_like(order).scatter(1, order, counts)


def batch_hard_pairs(x: Tensor, identities: Tensor) -> tuple[Tensor, Tensor]:
    """Indices of each anchor's farthest positive and nearest negative, each (N), without gradient.

    An anchor is its own positive. Without any negative the index is N.
    """
    lengths = squared_lengths(x)
    anchor = keep(x.detach().double(), (lengths < torch.inf).unsqueeze(1))
    # |x_j|^2 - 2 x_i x_j: |x_i|^2 is the same for all candidates of row i
    distances = lengths.unsqueeze(0) + anchor @ (anchor.t() * -2.0)
    # an extra column of zeros stands for "none", so that even an empty batch has something to choose from. Added here
    # and not to the rows of the product, because torch 2.1 cannot pad the rows of a tensor without columns.
    distances = F.pad(distances, [0, 1])
    same = F.pad(_have_same_identity(identities), [0, 1])
    none = torch.arange(distances.size(1), device=x.device) == x.size(0)
    positive = torch.where(same, distances, -torch.inf).argmax(1)
    nearest, negative = torch.where(same | none, torch.inf, distances).min(1)
    return positive, torch.where(nearest == torch.inf, x.size(0), negative)


def distances_to(x: Tensor, chosen: Tensor, root: bool, floor: float = 1e-12) -> Tensor:
    """Distance of each row of ``x`` to its chosen row, from their difference; index N means none and has no gradient.

    In float64: losses take the difference of two distances that may be almost equal.
    """
    x = x.double()
    difference = x - x.index_select(0, chosen.clamp(max=x.size(0) - 1))
    difference = keep(difference, (chosen < x.size(0)).unsqueeze(1))
    return distances_of((difference * difference).sum(1), root, floor)


def weighted_distances(x: Tensor, squared: Tensor, weights: Tensor, root: bool, floor: float = 1e-12) -> Tensor:
    r"""sum_ij w_ij d_ij in float64, for constant weights; 0 \cdot d is 0 even where d is infinite.

    The gradient is written out, because that of :func:`pairwise_squared_distances` has float64 products of transposed
    tensors, which onnxruntime 1.16 cannot run. A second derivative raises RuntimeError.

    Args:
        x: (N, D).
        squared: the :func:`pairwise_squared_distances` of ``x``.
        weights: w, (N, N).
        root: whether d is the distance; otherwise its square.
        floor: see :func:`distances_of`.
    """
    squared, weights = squared.detach(), weights.detach()
    d = distances_of(squared, root, floor)
    value = total(torch.where(weights == 0, 0.0, weights * d))
    # sum_ij w_ij d_ij has the gradient of sum_ij v_ij |x_i - x_j|^2 with v = w, or for roots w / 2d
    slope = torch.where((squared > floor) & (squared < torch.inf), weights / (2.0 * d), 0.0) if root else weights
    slope = slope + slope.t()
    x = keep(x.double(), (squared_lengths(x) < torch.inf).unsqueeze(1))
    y = x.detach()
    # 2 sum_j (v_ij + v_ji) (x_i - x_j)
    gradient = 2.0 * (slope.sum(1).unsqueeze(1) * y - slope @ y)
    return value + gradient_alone(total(x * gradient))
