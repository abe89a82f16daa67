"""What is done to an ONNX graph after translation, each step in one place and for a reason of its own."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from onnx_ir.passes import common
from onnxscript import ir, optimizer

from lossreg.exporters.signature import Signature

REDUCTIONS = ('ReduceSum', 'ReduceMean', 'ReduceMax', 'ReduceMin', 'ReduceProd', 'ArgMax', 'ArgMin')


def strip(model: ir.Model) -> None:
    """Removes source paths and all else that the exporter notes for debugging: smaller, and equal on every machine."""
    for holder in (model, model.graph, *model.graph.initializers.values(), *model.graph.inputs, *model.graph.outputs):
        holder.metadata_props.clear()
        holder.doc_string = None
    for node in model.graph.all_nodes():
        node.metadata_props.clear()
        node.doc_string = None
        for value in node.outputs:
            value.metadata_props.clear()


def tidy(model: ir.Model) -> None:
    """Inlines functions, folds constants and drops what is unused or computed twice: nothing that changes a number."""
    optimizer.inline(model)
    optimizer.fold_constants(model, onnx_shape_inference=True)
    passes = (
        common.IdentityEliminationPass(),
        common.RemoveUnusedNodesPass(),
        common.RemoveUnusedFunctionsPass(),
        common.RemoveUnusedOpsetsPass(),
        common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0),
        common.LiftSubgraphInitializersToMainGraphPass(),
        common.DeduplicateInitializersPass(),
        common.CommonSubexpressionEliminationPass(),
        common.OutputFixPass(),
    )
    for apply in passes:
        apply(model)


def mend_unit_quotients(model: ir.Model) -> None:
    """Writes 1 / x in float64 as a reciprocal: fusing it with a product kills onnxruntime 1.16."""
    for node in model.graph.all_nodes():
        if node.op_type == 'Div' and _is_one(node.inputs[0]):
            node.op_type = 'Reciprocal'
            node.replace_input_with(0, node.inputs[1])
            node.resize_inputs(1)


def _is_one(value: ir.Value) -> bool:
    """Whether a value is the float64 constant 1."""
    constant = value.const_value
    if constant is None or constant.dtype != ir.DataType.DOUBLE or constant.shape.rank() > 0:
        return False
    return bool(constant.numpy() == 1.0)


def drop_unused(model: ir.Model) -> None:
    """Removes the initialisers whose users the mends have replaced: ONNX Runtime warns of them."""
    common.RemoveUnusedNodesPass()(model)


def name_uniquely(model: ir.Model) -> None:
    """Gives values of inner graphs, which the mends have added to, names that no other graph has."""
    common.NameFixPass()(model)


def mend_open_clips(model: ir.Model) -> None:
    """Gives every clip both bounds: ONNX Runtime takes the largest finite number for one that is absent."""
    for node in model.graph.all_nodes():
        if node.op_type == 'Clip' and node.inputs[0].dtype.is_floating_point():
            node.resize_inputs(3)
            for at, side, bound in ((1, 'min', -np.inf), (2, 'max', np.inf)):
                if node.inputs[at] is None:
                    infinity = np.array(bound, node.inputs[0].dtype.numpy())
                    node.replace_input_with(at, _constant(model.graph, f'{node.outputs[0].name}_no_{side}', infinity))


def mend_empty_reductions(model: ir.Model) -> None:
    """Gives reductions along an axis the shape they must have when the batch is empty.

    ONNX Runtime's CPU kernels return the shape of their *input* then, and the next operator fails. A reduction over
    every axis is right without an axes input; any other is followed by a Reshape, which changes only an empty result.
    """
    for node in list(model.graph.all_nodes()):
        if node.op_type not in REDUCTIONS or node.inputs[0] is None or node.inputs[0].shape is None:
            continue
        rank = len(node.inputs[0].shape)
        axes = sorted(axis % rank for axis in _axes(node)) if rank else []
        if len(axes) == rank and not node.op_type.startswith('Arg'):
            node.resize_inputs(1)
        elif axes:
            _reshape(model.graph, node, axes, rank)


def _axes(node: ir.Node) -> list[int]:
    """The constant axes of a reduction; empty for one over all dimensions."""
    if node.op_type.startswith('Arg'):
        return [node.attributes.get_int('axis', 0)]
    if len(node.inputs) > 1 and node.inputs[1] is not None:
        constant = ir.convenience.get_const_tensor(node.inputs[1])
        return [] if constant is None else [int(axis) for axis in constant.numpy().flatten()]
    return list(node.attributes.get_ints('axes', []))


def _reshape(graph: ir.Graph, node: ir.Node, axes: list[int], rank: int) -> None:
    """Follows a reduction by a Reshape to the size of its input, without the axes or with ones in their place."""
    source, reduced = node.inputs[0], node.outputs[0]
    users = list(reduced.uses())
    size = ir.node('Shape', [source])
    if node.attributes.get_int('keepdims', 1):
        is_axis = _constant(graph, f'{reduced.name}_is_axis', np.isin(np.arange(rank), axes))
        one = _constant(graph, f'{reduced.name}_one', np.ones(1, np.int64))
        shape = ir.node('Where', [is_axis, one, size.outputs[0]])
    else:
        kept = [axis for axis in range(rank) if axis not in axes]
        indices = _constant(graph, f'{reduced.name}_kept', np.array(kept, np.int64))
        shape = ir.node('Gather', [size.outputs[0], indices])
    reshape = ir.node('Reshape', [reduced, shape.outputs[0]], attributes={'allowzero': 1})
    node.graph.insert_after(node, [size, shape, reshape])
    _replace(node.graph, reduced, reshape.outputs[0], users)


def guard_shapes(model: ir.Model, signature: Signature) -> None:
    """Makes all outputs but counts, or the input that the signature names, NaN where dimensions of one name differ.

    ONNX Runtime does not compare them, and would broadcast a dimension of size 1 silently.
    """
    graph = model.graph
    inputs = {value.name: value for value in graph.inputs}
    equal: list[ir.Value] = []
    nodes: list[ir.Node] = []
    for places in signature.shared_dimensions():
        sizes = []
        for name, axis in places:
            shape = ir.node('Shape', [inputs[name]], attributes={'start': axis, 'end': axis + 1})
            nodes.append(shape)
            sizes.append(shape.outputs[0])
        for other in sizes[1:]:
            nodes.append(ir.node('Equal', [sizes[0], other]))
            equal.append(nodes[-1].outputs[0])
    if not equal:
        return
    all_equal = equal[0]
    for other in equal[1:]:
        nodes.append(ir.node('And', [all_equal, other]))
        all_equal = nodes[-1].outputs[0]
    one = _constant(graph, 'shapes_match', np.ones(1, np.float32))
    nan = _constant(graph, 'shapes_differ', np.full(1, np.nan, np.float32))
    where = ir.node('Where', [all_equal, one, nan])
    scalar = ir.node('Squeeze', [where.outputs[0]])
    nodes += [where, scalar]
    if signature.guard:
        _guard_input(graph, inputs[signature.guard], scalar.outputs[0], nodes)
        return
    graph.extend(nodes)
    for value in list(graph.outputs):
        if value.dtype == ir.DataType.INT64:
            continue  # a count, which cannot be NaN
        guarded = ir.node('Mul', [value, scalar.outputs[0]])
        graph.append(guarded)
        _replace(graph, value, guarded.outputs[0], [])


def _guard_input(graph: ir.Graph, value: ir.Value, scalar: ir.Value, nodes: Sequence[ir.Node]) -> None:
    """Lets all that takes an input take its product with ``scalar``, which ``nodes`` compute."""
    users = [(user, index) for user, index in value.uses() if user not in nodes]
    guarded = ir.node('Mul', [value, scalar])
    guarded.outputs[0].shape, guarded.outputs[0].type = value.shape, value.type
    graph.insert_before(graph[0], [*nodes, guarded])
    for user, index in users:
        user.replace_input_with(index, guarded.outputs[0])


def _replace(graph: ir.Graph, old: ir.Value, new: ir.Value, users: Sequence[tuple[ir.Node, int]]) -> None:
    """Lets ``users``, and the graph's outputs, take ``new`` for ``old``, under the old name where it is an output."""
    new.shape, new.type = old.shape, old.type
    for user, index in users:
        user.replace_input_with(index, new)
    for at, output in enumerate(graph.outputs):
        if output is old:
            graph.outputs[at] = new
            # an output may be replaced twice, by different operators
            old.name, new.name = f'{old.name}_before_{new.producer().op_type}', old.name


def _constant(graph: ir.Graph, name: str, array: np.ndarray) -> ir.Value:
    tensor = ir.tensor(array, name=name)
    value = ir.Value(name=name, const_value=tensor, type=ir.TensorType(tensor.dtype), shape=tensor.shape)
    graph.register_initializer(value)
    return value
