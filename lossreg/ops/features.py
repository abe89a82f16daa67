"""Helpers that make features of student and teacher comparable: rows, products of rows, and maps."""

import torch
import torch.nn.functional as F
from torch import Tensor

from lossreg.arith import keep, normalize, root
from lossreg.ops.closed_form import gradient_alone
from lossreg.ops.reductions import average_over, total


def unit_rows(x: Tensor) -> Tensor:
    """Each row over its length; a row of zeros stays zero, with gradient 0."""
    length = root((x * x).sum(-1, keepdim=True))
    zero = length == 0
    return keep(x / torch.where(zero, 1.0, length), ~zero)


def products(x: Tensor) -> Tensor:
    """2 x_i x_j for all pairs of rows of a float64 tensor, (N, N), without gradient.

    The factor is there for onnxruntime 1.16, which cannot run a float64 product of a transposed tensor.
    """
    x = x.detach()
    return x @ (x.t() * 2.0)


def gradient_by_products(x: Tensor, slope: Tensor) -> Tensor:
    """0, with the gradient by ``x`` for the gradient ``slope`` by its :func:`products`.

    First order only: see :func:`lossreg.ops.closed_form.first_order`.
    """
    slope = slope.detach()
    # 2 sum_j (slope_ij + slope_ji) x_j
    return gradient_alone(total(x * ((slope + slope.t()) @ (x.detach() * 2.0))))


def standardised(x: Tensor, dims: list[int], eps: float) -> Tensor:
    """``x`` with mean 0 and standard deviation 1 along ``dims``, given from last to first; constants become 0.

    ``eps`` is added to the standard deviation, which is the unbiased one.
    """
    x = x - _mean(x, dims, 0)
    # twice, because a constant must become exactly 0: the rounding error of its float32 mean would be scaled up to 1
    x = x - _mean(x, dims, 0)
    return x / (root(_mean(x * x, dims, 1)) + eps)


def _mean(x: Tensor, dims: list[int], less: int) -> Tensor:
    """The sum along ``dims`` over the number of elements minus ``less``, with these dimensions kept as 1."""
    count = 1
    summed = x
    for dim in dims:
        count = count * x.size(dim)
        summed = summed.sum(dim, keepdim=True)
    return average_over(summed, count - less)


def check_same_maps(a: Tensor, b: Tensor, a_name: str, b_name: str) -> None:
    """Raises ValueError unless these are features (N, C, ...) that differ at most in C."""
    if a.dim() < 2 or a.dim() != b.dim() or a.shape[:1] + a.shape[2:] != b.shape[:1] + b.shape[2:]:
        raise ValueError(
            f'{a_name} has shape {list(a.shape)} and {b_name} has shape {list(b.shape)}; '
            'they must be equal but for dimension 1, the channels'
        )


def resized_like(x: Tensor, like: Tensor) -> Tensor:
    """A map (N, C, H, W) interpolated bilinearly to the height and width of another; unchanged if they are equal."""
    if torch.jit.is_scripting():  # type: ignore[attr-defined]
        if x.shape[2:] == like.shape[2:]:
            return x
    elif _same_size(x, like):
        return x
    return F.interpolate(x, size=like.shape[2:], mode='bilinear')


@torch.jit.unused
def _same_size(x: Tensor, like: Tensor) -> bool:
    # a traced graph must not compare two sizes, only check whether they are the same symbol; if not, it interpolates,
    # which changes nothing at equal sizes
    if type(x) is Tensor:
        return x.shape[2:] == like.shape[2:]
    from torch.fx.experimental.symbolic_shapes import statically_known_true

    return all(statically_known_true(a == b) for a, b in zip(x.shape[2:], like.shape[2:], strict=True))


def flat_features(x: Tensor, with_l2_norm: bool) -> Tensor:
    """A batch of features as float64 rows, of length 1 with ``with_l2_norm``."""
    x = x.flatten(1).double()
    return normalize(x) if with_l2_norm else x
