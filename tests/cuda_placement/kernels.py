"""The operators and types for which ONNX Runtime's CUDA provider has been seen to have a kernel.

``make test-cuda-placement`` writes the record, ``kernels.json``.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from itertools import groupby
from pathlib import Path

import onnx
from onnx import TensorProto

RECORD = Path(__file__).with_name('kernels.json')


def typed_nodes(data: bytes) -> Iterator[tuple[str, str]]:
    """Name and kind of every node, subgraphs included. A kind is ``Where(bool, float, float) -> float``."""
    model = onnx.shape_inference.infer_shapes(onnx.load_from_string(data), strict_mode=True)
    return _typed_nodes(model.graph, {'': '-'})


def _typed_nodes(graph: onnx.GraphProto, outer: dict[str, str]) -> Iterator[tuple[str, str]]:
    types = dict(outer)
    for value in (*graph.input, *graph.value_info, *graph.output):
        types[value.name] = _type_name(value.type.tensor_type.elem_type)
    types.update({tensor.name: _type_name(tensor.data_type) for tensor in graph.initializer})
    for node in graph.node:
        taken, returned = ([types[name] for name in names] for names in (node.input, node.output))
        if _is_variadic(node.op_type):
            taken, returned = ([kind for kind, _ in groupby(kinds)] for kinds in (taken, returned))
        yield node.name, f'{node.op_type}({", ".join(taken)}) -> {", ".join(returned)}'
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                yield from _typed_nodes(attribute.g, types)


def _is_variadic(operator: str) -> bool:
    """Whether an operator, and so its kernel, has any number of inputs or outputs of one type."""
    schema = onnx.defs.get_schema(operator)
    variadic = onnx.defs.OpSchema.FormalParameterOption.Variadic
    return any(sides[-1].option == variadic for sides in (schema.inputs, schema.outputs) if sides)


def _type_name(number: int) -> str:
    return TensorProto.DataType.Name(number).lower()


def unknown_nodes(data: bytes) -> list[str]:
    """The nodes of a file whose kind is not in the record."""
    known = set(json.loads(RECORD.read_text())['kernels'])
    return [f'{name}: {kind}' for name, kind in typed_nodes(data) if kind not in known]


def record(version: str, kinds: Iterable[str]) -> None:
    """Writes the record of the kernels of an onnxruntime."""
    content = {'onnxruntime': version, 'kernels': sorted(set(kinds))}
    RECORD.write_text(json.dumps(content, indent=1) + '\n')
