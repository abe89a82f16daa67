"""What is done to an ONNX graph after translation, each step in one place and for a reason of its own."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
from onnx_ir.passes import common
from onnxscript import ir, optimizer

from lossreg.exporters.signature import Signature

OF_NOTHING = {
    'ReduceSum': 0,
    'ReduceMean': 0,
    'ReduceMax': -np.inf,
    'ReduceMin': np.inf,
    'ReduceProd': 1,
    'ArgMax': 0,
    'ArgMin': 0,
}
"""What reductions give of nothing; infinities stand for the lowest or the largest integer in graphs of those."""


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
    """Removes the initialisers whose users the mends have replaced, of which ONNX Runtime warns, and equal ones."""
    common.RemoveUnusedNodesPass()(model)
    common.DeduplicateInitializersPass()(model)


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


def mend_empty_reductions(model: ir.Model, batch: str) -> None:
    """Lets reductions give what they must where a dimension is empty.

    Axes are counted from the front: along one counted from the end, ONNX Runtime's CPU kernels return the shape of
    their input. Before 1.17 they also leave an empty axis as it is, or refuse to reduce it; so a reduction over a
    dimension that may be empty is followed by the number that comes of nothing, and the first of the two is taken.

    Args:
        model: its dimensions are named.
        batch: the symbol of the one that may be empty; dimensions computed by subtraction or division may be, too.
    """
    for node in list(model.graph.all_nodes()):
        if node.op_type not in OF_NOTHING or node.inputs[0] is None or not node.inputs[0].shape:
            continue
        sizes = node.inputs[0].shape
        axes = _axes(node)
        if axes is None:
            continue
        if node.op_type.startswith('Arg'):
            node.attributes['axis'] = ir.AttrInt64('axis', axes[0])
        elif len(axes) == len(sizes):
            node.resize_inputs(1)
        else:
            node.replace_input_with(1, _constant(model.graph, f'{node.outputs[0].name}_axis', np.array(axes)))
        empty = next((axis for axis in axes if _may_be_empty(sizes[axis], batch)), None)
        if empty is not None:
            _or_nothing(model.graph, node, axes, empty)


def _axes(node: ir.Node) -> list[int] | None:
    """The axes of a reduction, counted from the front and in order; None where they are no constants."""
    rank = len(node.inputs[0].shape)
    if node.op_type.startswith('Arg'):
        found = [node.attributes.get_int('axis', 0)]
    elif len(node.inputs) > 1 and node.inputs[1] is not None:
        constant = ir.convenience.get_const_tensor(node.inputs[1])
        if constant is None:
            return None
        found = [int(axis) for axis in constant.numpy().flatten()]
    else:
        found = list(node.attributes.get_ints('axes', []))
    return sorted(axis % rank for axis in found) or list(range(rank))


def _may_be_empty(size: int | ir.SymbolicDim, batch: str) -> bool:
    """Whether a dimension depends on the size of the batch, or is computed so that it may be 0 for others."""
    if isinstance(size, int) or size.value is None:
        return bool(batch) and not isinstance(size, int)
    return not {batch, '-', '/', 'floor'}.isdisjoint(re.findall(r'\w+|[-/]', size.value))


def _or_nothing(graph: ir.Graph, node: ir.Node, axes: list[int], empty: int) -> None:
    """Follows a reduction by what comes of nothing, and takes that where the axis ``empty`` is."""
    source, reduced = node.inputs[0], node.outputs[0]
    users, keepdims = list(reduced.uses()), node.attributes.get_int('keepdims', 1)
    sizes, name = list(source.shape), reduced.name
    kept = [axis for axis in range(len(sizes)) if axis not in axes]
    node.attributes['keepdims'] = ir.AttrInt64('keepdims', 1)
    nothing = _of_nothing(node.op_type, reduced.dtype.numpy())
    added: list[ir.Node] = []

    def add(operator: str, *inputs: ir.Value, **attributes: int | ir.Tensor) -> ir.Value:
        added.append(ir.node(operator, inputs, attributes=attributes))
        return added[-1].outputs[0]

    def numbers(what: str, *array: int | bool) -> ir.Value:
        return _constant(graph, f'{name}_{what}', np.array(array))

    if not kept:
        found = reduced if len(sizes) == 1 else add('Reshape', reduced, numbers('flat', -1))
        found = add('Concat', found, _constant(graph, f'{name}_of_nothing', nothing), axis=0)
        first = _constant(graph, f'{name}_first', np.array([0] if keepdims else 0))
        found = add('Gather', found, first, axis=0)
        if keepdims and len(sizes) > 1:
            found = add('Reshape', found, numbers('ones', *[1] * len(sizes)))
    else:
        is_axis = numbers('is_axis', *(axis in axes for axis in range(len(sizes))))
        shape = add('Where', is_axis, numbers('one', 1), add('Shape', source))
        if any(sizes[axis] == sizes[empty] for axis in kept):
            found = add('Reshape', reduced, shape, allowzero=1)  # nothing either way, but of another shape
        else:
            found = add('Concat', reduced, add('ConstantOfShape', shape, value=ir.tensor(nothing)), axis=empty)
            found = add('Gather', found, numbers('first', 0), axis=empty)
        if not keepdims:
            found = add('Squeeze', found, numbers('axes', *axes))
    node.graph.insert_after(node, added)
    _replace(node.graph, reduced, found, users)
    reduced.shape = None  # its dimensions are kept now


def _of_nothing(operator: str, dtype: np.dtype) -> np.ndarray:
    """What newer versions of ONNX Runtime give for a reduction of nothing."""
    number = OF_NOTHING[operator]
    if np.isinf(number) and np.issubdtype(dtype, np.integer):
        limits = np.iinfo(dtype)
        number = limits.max if number > 0 else limits.min
    return np.array([number], dtype)


def guard_shapes(model: ir.Model, signature: Signature) -> None:
    """Makes loss and gradients, or the input that the signature names, NaN where dimensions of one name differ.

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
