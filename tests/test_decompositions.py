"""Operators written with others, against torch's own, in float64 and without an export."""

import itertools

import pytest
import torch

from lossreg.exporters import decompositions

aten = torch.ops.aten


def same(found, wanted):
    torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-12)


def normal(*shape):
    return torch.randn(shape, dtype=torch.float64)


CONVOLUTIONS = {
    'plain': ((2, 3, 5, 6), (4, 3, 2, 3), [1, 1], [0, 0], [1, 1], False, [0, 0], 1),
    'strides that leave a rest': ((2, 3, 8, 9), (4, 3, 3, 2), [3, 2], [1, 0], [1, 1], False, [0, 0], 1),
    'dilated groups': ((2, 4, 9, 8), (6, 2, 3, 2), [2, 1], [2, 1], [2, 3], False, [0, 0], 2),
    'one dimension': ((3, 2, 7), (4, 2, 3), [2], [1], [1], False, [0], 1),
    'transposed': ((2, 4, 3, 5), (4, 3, 3, 2), [2, 3], [1, 0], [1, 2], True, [1, 2], 1),
    'transposed groups': ((2, 4, 4, 3), (4, 2, 2, 3), [3, 2], [0, 1], [1, 1], True, [2, 1], 2),
}


@pytest.mark.parametrize('case', CONVOLUTIONS.values(), ids=CONVOLUTIONS)
def test_gradients_of_convolutions(case):
    (x, weight), options = (normal(*shape) for shape in case[:2]), case[2:]
    y = aten.convolution(x, weight, None, *options)
    bias_sizes = [y.shape[1]]
    for mask in itertools.product([True, False], repeat=3):
        arguments = (torch.randn_like(y), x, weight, bias_sizes, *options, list(mask))
        found, wanted = decompositions.convolution_backward(*arguments), aten.convolution_backward(*arguments)
        assert [gradient is not None for gradient in found] == list(mask)
        for ours, torchs, asked in zip(found, wanted, mask, strict=True):
            if asked:
                same(ours, torchs)


@pytest.mark.parametrize('include_pad', [True, False])
@pytest.mark.parametrize('ceil_mode', [True, False])
@pytest.mark.parametrize(
    ('kernel', 'stride', 'padding', 'divisor'),
    [
        ([3, 2], [2, 1], [1, 0], None),
        ([2, 4], [3, 3], [1, 2], None),
        ([2], [], [0], None),
        ([3, 3], [], [1, 1], 5),
    ],
    ids=['overlapping', 'apart', 'square', 'divisor'],
)
def test_gradient_of_average_pooling(kernel, stride, padding, divisor, ceil_mode, include_pad):
    x = normal(2, 3, 8, 7)
    options = (kernel, stride, padding, ceil_mode, include_pad, divisor)
    grad = torch.randn_like(aten.avg_pool2d(x, *options))
    same(decompositions.avg_pool2d_backward(grad, x, *options), aten.avg_pool2d_backward(grad, x, *options))


@pytest.mark.parametrize('size', [[3, 2], [5, 7], [1, 1], [7, 9]])
def test_adaptive_pooling_and_its_gradient(size):
    x, grad = normal(2, 3, 5, 7), normal(2, 3, *size)
    same(decompositions.adaptive_avg_pool2d(x, size), aten._adaptive_avg_pool2d(x, size))
    same(decompositions.adaptive_avg_pool2d_backward(grad, x), aten._adaptive_avg_pool2d_backward(grad, x))


def test_gradient_of_max_pooling():
    x = normal(2, 3, 6, 7)
    options = ([3, 3], [1, 2], [1, 1], [1, 1], True)
    y, indices = aten.max_pool2d_with_indices(x, *options)
    arguments = (torch.randn_like(y), x, *options, indices)
    same(decompositions.max_pool2d_backward(*arguments), aten.max_pool2d_with_indices_backward(*arguments))


@pytest.mark.parametrize('dims', [(0, 1), (2, 0), (-1, 1)])
@pytest.mark.parametrize('offset', [-2, -1, 0, 1, 2])
def test_gradient_of_a_diagonal(dims, offset):
    shape = [3, 4, 5]
    grad = torch.randn_like(torch.diagonal(normal(*shape), offset, *dims))
    arguments = (grad, shape, offset, *dims)
    same(decompositions.diagonal_backward(*arguments), aten.diagonal_backward(*arguments))


@pytest.mark.parametrize('dims', [None, [0], [1, 2], [-1]])
def test_variance_and_mean(dims):
    x = normal(3, 4, 5)
    for correction, keepdim in itertools.product([None, 0, 1, 2], [True, False]):
        options = {'correction': correction, 'keepdim': keepdim}
        same(decompositions.var_mean(x, dims, **options), aten.var_mean.correction(x, dims, **options))


@pytest.mark.parametrize('dims', [[0], [0, 2], [1], [-1], [-2, 0]])
def test_dimensions_of_size_1_are_dropped(dims):
    for shape in ((1, 3, 1, 2), (1, 1, 1, 1), (2, 3, 4, 5)):
        x = normal(*shape)
        same(decompositions.squeeze(x, dims), aten.squeeze.dims(x, dims))
