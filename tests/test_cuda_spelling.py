"""Operators without a CUDA kernel in ONNX Runtime are replaced by others that give the same numbers."""

import math

import numpy as np
import onnx
import onnxruntime
import torch
import torch.nn.functional as F
from torch import nn

from lossreg.testing import assert_exportable


class Elementwise(nn.Module):
    def forward(self, x):
        return torch.atan(x)


class Padded(nn.Module):
    """Integers padded along two dimensions, on both sides, with two values."""

    def forward(self, label):
        return F.pad(F.pad(label, [2, 1, 0, 3], value=-7.0), [0, 1]).float() + F.pad(label, [4, 0, 3, 0]).float()


class Repeated(nn.Module):
    """Booleans repeated by a dynamic size and by a constant."""

    def forward(self, x):
        return (x > 0).repeat([2, x.size(0)]).float()


def runner(model):
    session = onnxruntime.InferenceSession(model, providers=['CPUExecutionProvider'])
    return lambda array: session.run(None, {session.get_inputs()[0].name: array})[0]


def kinds(model):
    """The operators of a model, with the types of their inputs."""
    graph = onnx.shape_inference.infer_shapes(onnx.load_from_string(model)).graph
    types = {v.name: v.type.tensor_type.elem_type for v in (*graph.input, *graph.value_info, *graph.output)}
    return {(node.op_type, types.get(node.input[0])) for node in graph.node if node.input}


def off_by(found, x):
    """The largest error of the arc tangents, in units in the last place of float32."""
    right = np.arctan(x.astype(np.float64))
    return float((np.abs(found - right) / np.spacing(np.abs(right).astype(np.float32))).max())


def test_the_arc_tangent_is_nearer_than_the_runtimes_own(onnx_files):
    assert_exportable(
        Elementwise(), [torch.randn(5)], [torch.tensor([0.0, math.inf, -math.inf, math.nan])], formats=['onnx']
    )
    assert 'Atan' not in {op for op, _ in kinds(onnx_files[-1])}
    ours = runner(onnx_files[-1])
    value = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ['N']) for name in ('x', 'y')]
    graph = onnx.helper.make_graph([onnx.helper.make_node('Atan', ['x'], ['y'])], 'own', value[:1], value[1:])
    opset = [onnx.helper.make_opsetid('', 18)]
    own = runner(onnx.helper.make_model(graph, opset_imports=opset, ir_version=8).SerializeToString())
    # numbers of every magnitude, and more where the formula changes
    rng = np.random.default_rng(0)
    sizes = [2.0 ** rng.uniform(-126, 128, 200_000), rng.uniform(0, 5, 400_000)]
    x = np.concatenate([*sizes, *(-s for s in sizes)]).astype(np.float32)
    assert off_by(ours(x), x) < 2.5
    assert off_by(ours(x), x) <= off_by(own(x), x)
    ends = np.array([0, 1e-45, np.finfo(np.float32).max, np.inf, -np.inf, np.nan], np.float32)
    np.testing.assert_allclose(ours(ends), np.arctan(ends.astype(np.float64)), rtol=1e-7)


def test_integers_are_padded_by_concatenation(onnx_files):
    first, second = (torch.arange(n * m).reshape(n, m) for n, m in ((4, 3), (2, 5)))
    assert_exportable(Padded(), [first], [second], [torch.tensor([[2**62 + 1]])], formats=['onnx'])
    assert ('Concat', onnx.TensorProto.INT64) in kinds(onnx_files[-1])
    assert 'Pad' not in {op for op, _ in kinds(onnx_files[-1])}


def test_truth_values_are_repeated_as_numbers(onnx_files):
    assert_exportable(Repeated(), [torch.randn(4, 3)], [torch.randn(2, 5)], formats=['onnx'])
    assert {kind for kind in kinds(onnx_files[-1]) if kind[0] == 'Tile'} == {('Tile', onnx.TensorProto.FLOAT)}
