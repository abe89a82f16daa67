"""Decompositions of the operators, in losses and networks, that the ONNX exporter lacks or gets wrong.

A training step fixes all sizes but the batch's, so the decompositions of layers may use sizes as numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch._decomp import core_aten_decompositions, get_decompositions

aten = torch.ops.aten


@cache
def loss_decompositions() -> dict[Any, Any]:
    """Decompositions of the operators in gradients that the ONNX exporter cannot translate, or translates wrongly.

    An operator without a translation would make the exporter trace a second time. The layers are for losses of other
    packages: ours have none.
    """
    operators = [
        aten._log_softmax_backward_data,
        aten._softmax_backward_data,
        aten.index_add,
        aten.rsub,
        aten.select_backward,
        aten.sgn,
        aten.sigmoid_backward,
        aten.slice_backward,
        aten.smooth_l1_loss,
        aten.smooth_l1_loss_backward,
        aten.huber_loss,
        aten.huber_loss_backward,
        aten.mse_loss_backward,
        aten.softplus_backward,
        aten.tanh_backward,
        aten.threshold_backward,
        # torch's translation returns 1 for the sum of weights, by which the gradient of a mean is divided
        aten.nll_loss_forward,
        aten.nll_loss_backward,
        aten.nll_loss2d_forward,
        aten.nll_loss2d_backward,
        aten.mish_backward,
        aten.silu_backward,
        aten._trilinear,
    ]
    return {**get_decompositions(operators), **layer_decompositions()}


@cache
def student_decompositions() -> dict[Any, Any]:
    """All decompositions for tracing a training step."""
    ready_made = [
        # the exporter's translation of this one uses the running statistics in training too
        aten._native_batch_norm_legit,
        aten.native_batch_norm,
        aten.native_batch_norm_backward,
        aten.native_layer_norm,
        aten.native_layer_norm_backward,
        aten.native_group_norm,
        aten.native_group_norm_backward,
        aten.embedding_dense_backward,
    ]
    ours = {aten.var_mean.correction: var_mean, aten.squeeze.dims: squeeze}
    return {**core_aten_decompositions(), **get_decompositions(ready_made), **loss_decompositions(), **ours}


def layer_decompositions() -> dict[Any, Any]:
    """Decompositions, written here, of layers whose gradients the exporter lacks."""
    return {
        aten.convolution_backward.default: convolution_backward,
        aten.avg_pool2d_backward.default: avg_pool2d_backward,
        aten._adaptive_avg_pool2d.default: adaptive_avg_pool2d,
        aten._adaptive_avg_pool2d_backward.default: adaptive_avg_pool2d_backward,
        aten.max_pool2d_with_indices_backward.default: max_pool2d_backward,
        aten.diagonal_backward.default: diagonal_backward,
    }


def var_mean(
    x: Tensor, dim: Sequence[int] | None = None, *, correction: float | None = None, keepdim: bool = False
) -> tuple[Tensor, Tensor]:
    """Variance and mean; without this, the exporter would trace a second time."""
    axes = list(range(x.dim())) if dim is None else list(dim)
    mean = x.mean(axes, keepdim=True)
    count = torch.ones((), dtype=x.dtype, device=x.device)
    for axis in axes:
        count = count * x.shape[axis]
    free = count - (1 if correction is None else correction)
    variance = (x - mean).square().sum(axes, keepdim=keepdim) / free
    return variance, mean if keepdim else squeeze(mean, axes)


def squeeze(x: Tensor, dims: Sequence[int]) -> Tensor:
    """Drops the given dimensions, as far as they have size 1."""
    dropped = {dim % x.dim() for dim in dims}
    return x.reshape([size for axis, size in enumerate(x.shape) if axis not in dropped or size != 1])


def convolution_backward(
    grad: Tensor,
    x: Tensor,
    weight: Tensor,
    bias_sizes: Sequence[int] | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    transposed: bool,
    output_padding: Sequence[int],
    groups: int,
    output_mask: Sequence[bool],
) -> Any:
    """Gradients of a convolution: two convolutions and a sum. In a transposed one, x and grad change places."""
    grad_x = grad_weight = grad_bias = None
    if output_mask[0] and transposed:
        grad_x = aten.convolution(grad, weight, None, stride, padding, dilation, False, [0] * len(stride), groups)
        for axis, size in enumerate(x.shape[2:]):
            grad_x = grad_x.narrow(2 + axis, 0, size)
    elif output_mask[0]:
        # the elements at the end of each dimension that no stride reaches
        rest = [
            x.shape[2 + i]
            - ((grad.shape[2 + i] - 1) * stride[i] - 2 * padding[i] + dilation[i] * (weight.shape[2 + i] - 1) + 1)
            for i in range(len(stride))
        ]
        grad_x = aten.convolution(grad, weight, None, stride, padding, dilation, True, rest, groups)
    if output_mask[1]:
        small, large = (x, grad) if transposed else (grad, x)
        grad_weight = _weight_gradient(small, large, weight, stride, padding, dilation, groups)
    if output_mask[2]:
        grad_bias = grad.sum([0, *range(2, grad.dim())])
    return grad_x, grad_weight, grad_bias


def _weight_gradient(
    grad: Tensor,
    x: Tensor,
    weight: Tensor,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
) -> Tensor:
    """gw[o, c, k] = Σ_n Σ_p grad[n, o, p] x[n, c, stride p + dilation k - padding].

    That is a convolution of x with grad in which batch and channels change places, and so do stride and dilation.
    """
    spatial = x.shape[2:]
    channels = x.shape[1] // groups
    order = [2, 1, 0, *range(3, 3 + len(spatial))]
    # (C/g, g N, ...): each group's convolution sums over the batch
    images = x.reshape(x.shape[0], groups, channels, *spatial).permute(order)
    images = images.reshape(channels, groups * x.shape[0], *spatial)
    kernels = grad.transpose(0, 1)
    zeros = [0] * len(spatial)
    found: Tensor = aten.convolution(images, kernels, None, dilation, padding, stride, False, zeros, groups)
    for axis, size in enumerate(weight.shape[2:]):
        found = found.narrow(2 + axis, 0, size)
    return found.transpose(0, 1)


def avg_pool2d_backward(
    grad: Tensor,
    x: Tensor,
    kernel_size: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    ceil_mode: bool,
    count_include_pad: bool,
    divisor_override: int | None,
) -> Tensor:
    """Gradient of average pooling: each window's share, spread by a transposed convolution with ones."""
    kernel, step = _pair(kernel_size), _pair(stride or kernel_size)
    pad = _pair(padding)
    height, width = x.shape[2:]
    shares = grad / _window_counts(x, grad, kernel, step, pad, count_include_pad, divisor_override)
    planes = shares.reshape(-1, 1, *grad.shape[2:])
    ones = torch.ones([1, 1, *kernel], dtype=x.dtype, device=x.device)
    spread = aten.convolution(planes, ones, None, step, [0, 0], [1, 1], True, [0, 0], 1)
    # the windows may end before the padded input does, or beyond it with ceil_mode
    missing = [pad[i] + x.shape[2 + i] - spread.shape[2 + i] for i in range(2)]
    spread = F.pad(spread, [0, max(missing[1], 0), 0, max(missing[0], 0)])
    return spread[:, :, pad[0] : pad[0] + height, pad[1] : pad[1] + width].reshape(x.shape)


def _window_counts(
    x: Tensor,
    grad: Tensor,
    kernel: list[int],
    step: list[int],
    pad: list[int],
    count_include_pad: bool,
    divisor_override: int | None,
) -> Tensor | int:
    """The divisor of each window's sum."""
    if divisor_override:
        return divisor_override
    counts = []
    for i in range(2):
        starts = torch.arange(grad.shape[2 + i]) * step[i] - pad[i]
        first, last = (-pad[i], x.shape[2 + i] + pad[i]) if count_include_pad else (0, x.shape[2 + i])
        counts.append((starts + kernel[i]).clamp(max=last) - starts.clamp(min=first))
    return (counts[0].unsqueeze(1) * counts[1]).to(x.dtype).to(x.device)


def adaptive_avg_pool2d(x: Tensor, output_size: Sequence[int]) -> Tensor:
    """Means over windows that may overlap, as a product with a constant matrix on each side."""
    rows, columns = (_averaging(x, 2 + i, output_size[i]) for i in range(2))
    return rows @ x @ columns.transpose(0, 1)


def adaptive_avg_pool2d_backward(grad: Tensor, x: Tensor) -> Tensor:
    """Gradient of :func:`adaptive_avg_pool2d`."""
    rows, columns = (_averaging(x, 2 + i, grad.shape[2 + i]) for i in range(2))
    return rows.transpose(0, 1) @ grad @ columns


def _averaging(x: Tensor, axis: int, count: int) -> Tensor:
    """The (count, size) matrix whose row i averages from floor(i size / count) to ceil((i + 1) size / count) - 1."""
    size = x.shape[axis]
    places, windows = torch.arange(size), torch.arange(count).unsqueeze(1)
    starts, ends = windows * size // count, ((windows + 1) * size + count - 1) // count
    inside = ((places >= starts) & (places < ends)).to(x.dtype)
    return (inside / inside.sum(1, keepdim=True)).to(x.device)


def max_pool2d_backward(
    grad: Tensor,
    x: Tensor,
    kernel_size: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    ceil_mode: bool,
    indices: Tensor,
) -> Tensor:
    """Gradient of max pooling: each window's gradient goes to its largest element; windows may share one."""
    flat = torch.zeros_like(x).flatten(2)
    return flat.scatter_add(2, indices.flatten(2), grad.flatten(2)).reshape(x.shape)


def diagonal_backward(grad: Tensor, input_sizes: Sequence[int], offset: int, dim1: int, dim2: int) -> Tensor:
    """Gradient of ``diagonal``: on the diagonal, and 0 elsewhere. torch's own formula writes into a view."""
    rows = torch.arange(input_sizes[dim1], device=grad.device)
    columns = torch.arange(input_sizes[dim2], device=grad.device)
    place = (rows + min(offset, 0)).clamp(0, grad.shape[-1] - 1)
    on_diagonal = columns - rows.unsqueeze(1) == offset
    spread = torch.where(on_diagonal, grad.index_select(-1, place).unsqueeze(-1), 0.0)
    return spread.movedim((-2, -1), (dim1, dim2))


def _pair(sizes: Sequence[int]) -> list[int]:
    return list(sizes) if len(sizes) > 1 else [sizes[0], sizes[0]]
