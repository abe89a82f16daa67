"""Passes over a translated ONNX graph: clean-up, workarounds for ONNX Runtime's faults, and guards."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
from onnx_ir.passes import common
from onnxscript import ir, optimizer

from lossreg.exporters.signature import Signature

REDUCTIONS = ('ReduceSum', 'ReduceMean', 'ReduceMax', 'ReduceMin', 'ReduceProd', 'ArgMax', 'ArgMin')

EXP_IS_ZERO = -745.2
"""Below this, the exponential is 0 in float64."""


def strip(model: ir.Model) -> None:
    """Removes source paths and other debugging data, so that files are smaller and the same on every machine."""
    for holder in (model, model.graph, *model.graph.initializers.values(), *model.graph.inputs, *model.graph.outputs):
        holder.metadata_props.clear()
        holder.doc_string = None
    for node in model.graph.all_nodes():
        node.metadata_props.clear()
        node.doc_string = None
        for value in node.outputs:
            value.metadata_props.clear()


def tidy(model: ir.Model) -> None:
    """Inlines functions, folds constants and drops what is unused or computed twice. No number changes."""
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


def fix_unit_quotients(model: ir.Model) -> None:
    """Writes 1 / x in float64 as a reciprocal: onnxruntime 1.16 crashes when it fuses the division with a product."""
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
    """Removes duplicate initialisers, and those that the fixes left without users, about which ONNX Runtime warns."""
    common.RemoveUnusedNodesPass()(model)
    common.DeduplicateInitializersPass()(model)


def name_uniquely(model: ir.Model) -> None:
    """Makes the names of values unique across the main graph and subgraphs, to which the fixes add values."""
    common.NameFixPass()(model)


def fix_open_clips(model: ir.Model) -> None:
    """Gives every Clip both bounds: for an absent one, ONNX Runtime uses the largest finite number."""
    for node in model.graph.all_nodes():
        if node.op_type == 'Clip' and node.inputs[0].dtype.is_floating_point():
            node.resize_inputs(3)
            for at, side, bound in ((1, 'min', -np.inf), (2, 'max', np.inf)):
                if node.inputs[at] is None:
                    infinity = np.array(bound, node.inputs[0].dtype.numpy())
                    node.replace_input_with(at, _constant(model.graph, f'{node.outputs[0].name}_no_{side}', infinity))


def fix_double_exponentials(model: ir.Model) -> None:
    """Makes exponentials in float64 underflow to 0: onnxruntime 1.16 returns 5.6e-309, whose logarithm is finite."""
    for node in list(model.graph.all_nodes()):
        if node.op_type == 'Exp' and node.inputs[0].dtype == ir.DataType.DOUBLE:
            x, raised = node.inputs[0], node.outputs[0]
            users = list(raised.uses())
            least, zero = (_constant(model.graph, f'{raised.name}_{n}', np.array(n)) for n in (EXP_IS_ZERO, 0.0))
            is_zero = ir.node('Less', [x, least])
            where = ir.node('Where', [is_zero.outputs[0], zero, raised])
            node.graph.insert_after(node, [is_zero, where])
            _replace(node.graph, raised, where.outputs[0], users)


def fix_empty_products(model: ir.Model) -> None:
    """Makes a product over a dimension of size 0 return 0: ONNX Runtime returns uninitialised memory."""
    for node in list(model.graph.all_nodes()):
        if node.op_type != 'MatMul' or node.inputs[0].shape is None or isinstance(node.inputs[0].shape[-1], int):
            continue
        product, users = node.outputs[0], list(node.outputs[0].uses())
        none = _constant(model.graph, f'{product.name}_none', np.zeros(1, np.int64))
        zero = _constant(model.graph, f'{product.name}_zero', np.zeros((), node.inputs[0].dtype.numpy()))
        size = ir.node('Shape', [node.inputs[0]], attributes={'start': -1})
        is_empty = ir.node('Equal', [size.outputs[0], none])
        where = ir.node('Where', [is_empty.outputs[0], zero, product])
        node.graph.insert_after(node, [size, is_empty, where])
        _replace(node.graph, product, where.outputs[0], users)


def fix_double_maxima(model: ir.Model) -> None:
    """Makes Max and Min in float64 return NaN if their second input is NaN: onnxruntime 1.16 returns the first.

    It does so in float32 too, but there each NaN also reaches the loss by another path, and the fix would cost too
    much.
    """
    for node in list(model.graph.all_nodes()):
        if node.op_type in ('Max', 'Min') and node.inputs[0].dtype == ir.DataType.DOUBLE and len(node.inputs) == 2:
            second, found = node.inputs[1], node.outputs[0]
            users = list(found.uses())
            is_nan = ir.node('IsNaN', [second])
            where = ir.node('Where', [is_nan.outputs[0], second, found])
            node.graph.insert_after(node, [is_nan, where])
            _replace(node.graph, found, where.outputs[0], users)


def fix_unused_scan_results(model: ir.Model) -> None:
    """Gives every result of a Scan a user: otherwise onnxruntime 1.16 returns wrong numbers from the second run on.

    It plans memory in the first run, and reuses the memory of an unused result while the Scan still runs.
    """
    for node in list(model.graph.all_nodes()):
        used = [value for value in node.outputs if value.uses()]
        unused = [value for value in node.outputs if not value.uses() and not value.is_graph_output()]
        if node.op_type != 'Scan' or not unused or not used:
            continue
        result, users = used[0], list(used[0].uses())
        sizes = [ir.node('Size', [value]) for value in unused]
        nought = _constant(model.graph, f'{result.name}_nought', np.array(0))
        zero = ir.node('Min', [nought, *(size.outputs[0] for size in sizes)])
        shape = ir.node('Shape', [result])
        same = ir.node('Add', [shape.outputs[0], zero.outputs[0]])
        reshape = ir.node('Reshape', [result, same.outputs[0]], attributes={'allowzero': 1})
        node.graph.insert_after(node, [*sizes, zero, shape, same, reshape])
        _replace(node.graph, result, reshape.outputs[0], users)


def fix_integer_pads(model: ir.Model) -> None:
    """Writes padding of integers as a concatenation: ONNX Runtime's CUDA provider cannot pad integers."""
    for node in list(model.graph.all_nodes()):
        if node.op_type != 'Pad' or node.inputs[0].dtype != ir.DataType.INT64:
            continue
        pads, number = (ir.convenience.get_const_tensor(value) for value in node.inputs[1:3])
        if pads is None or number is None or pads.numpy().min() < 0:
            continue  # the padding depends on sizes, or crops
        before, after = np.split(pads.numpy(), 2)
        padded, users = node.outputs[0], list(node.outputs[0].uses())
        result, added = node.inputs[0], list[ir.Node]()
        for axis in map(int, np.flatnonzero(before + after)):
            more = _slice_of(model.graph, f'{padded.name}_{axis}', result, axis, added, number.numpy())
            parts = [more] * int(before[axis]) + [result] + [more] * int(after[axis])
            added.append(ir.node('Concat', parts, attributes={'axis': axis}))
            result = added[-1].outputs[0]
            result.type, result.shape = padded.type, ir.Shape([None] * len(before))
        node.graph.insert_after(node, added)
        _replace(node.graph, padded, result, users)


def fix_boolean_tiles(model: ir.Model) -> None:
    """Tiles booleans as numbers: ONNX Runtime's CUDA provider cannot tile booleans."""
    for node in list(model.graph.all_nodes()):
        if node.op_type == 'Tile' and node.inputs[0].dtype == ir.DataType.BOOL:
            repeated, users = node.outputs[0], list(node.outputs[0].uses())
            numbers = ir.node('Cast', [node.inputs[0]], attributes={'to': ir.DataType.FLOAT})
            truths = ir.node('Cast', [repeated], attributes={'to': ir.DataType.BOOL})
            node.graph.insert_before(node, numbers)
            node.graph.insert_after(node, truths)
            node.replace_input_with(0, numbers.outputs[0])
            _replace(node.graph, repeated, truths.outputs[0], users)
            repeated.type = ir.TensorType(ir.DataType.FLOAT)


def fix_empty_reductions(model: ir.Model, batch: str) -> None:
    """Makes reductions right if a dimension is empty.

    Axes become non-negative: if an axis is negative, ONNX Runtime's CPU kernels return the shape of their input.
    Before 1.17 they also refuse to sum over an empty dimension, or leave it empty, so a sum over a dimension that may
    be empty gets an additional zero.

    Args:
        model: a model with named dimensions.
        batch: the symbol of the dimension that may be empty; '' for none.
    """
    for node in list(model.graph.all_nodes()):
        if node.op_type not in REDUCTIONS or node.inputs[0] is None or not node.inputs[0].shape:
            continue
        sizes, axes = list(node.inputs[0].shape), _axes(node)
        if axes is None:
            continue
        if node.op_type.startswith('Arg'):
            node.attributes['axis'] = ir.AttrInt64('axis', axes[0])
            continue
        if len(axes) == len(sizes):
            node.resize_inputs(1)
        else:
            node.replace_input_with(1, _constant(model.graph, f'{node.outputs[0].name}_axes', np.array(axes)))
        empty = next((axis for axis in axes if _may_be_empty(sizes[axis], batch)), None)
        if node.op_type != 'ReduceSum' or empty is None:
            continue
        if any(sizes[axis] == sizes[empty] for axis in range(len(sizes)) if axis not in axes):
            _reshape_sum(model.graph, node, axes)
        else:
            _add_zero(model.graph, node, axes, empty)


def _axes(node: ir.Node) -> list[int] | None:
    """The axes of a reduction, non-negative and in order; None if they are not constant."""
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
    """Whether a dimension may be 0: it is the batch, or its size is a difference or a quotient."""
    if not batch or isinstance(size, int):
        return False
    parts = {batch, '-', '/', 'floor'} if size.value is None else set(re.findall(r'\w+|[-+/]', size.value))
    return not parts.isdisjoint('-/') or 'floor' in parts or (batch in parts and '+' not in parts)


def _reshape_sum(graph: ir.Graph, node: ir.Node, axes: list[int]) -> None:
    """Reshapes a sum to its right shape: kernels may leave an empty axis in place.

    The sum must have another dimension of the size of that axis, so that it is empty too and loses no number.
    """
    source, summed = node.inputs[0], node.outputs[0]
    users, keepdims = list(summed.uses()), node.attributes.get_int('keepdims', 1)
    node.attributes['keepdims'] = ir.AttrInt64('keepdims', 1)
    size = ir.node('Shape', [source])
    shape = _shape_of_one(graph, summed.name, size.outputs[0], axes, len(source.shape))
    added = [size, shape, ir.node('Reshape', [summed, shape.outputs[0]], attributes={'allowzero': 1})]
    if not keepdims:
        added.append(ir.node('Squeeze', [added[-1].outputs[0], node.inputs[1]]))
    node.graph.insert_after(node, added)
    _replace(node.graph, summed, added[-1].outputs[0], users)
    summed.shape = None


def _add_zero(graph: ir.Graph, node: ir.Node, axes: list[int], empty: int) -> None:
    """Appends a 0 along the axis ``empty`` before a sum."""
    source, name = node.inputs[0], node.outputs[0].name
    zero, rank = np.zeros(1, source.dtype.numpy()), len(source.shape)
    added: list[ir.Node] = []
    if len(axes) < rank:
        more = _slice_of(graph, name, source, empty, added)
    else:
        more = _constant(graph, f'{name}_zero', zero)
        if rank > 1:
            added.append(ir.node('Reshape', [source, _constant(graph, f'{name}_flat', np.array([-1]))]))
            source, empty = added[-1].outputs[0], 0
    added.append(ir.node('Concat', [source, more], attributes={'axis': empty}))
    node.graph.insert_before(node, added)
    node.replace_input_with(0, added[-1].outputs[0])


def _slice_of(
    graph: ir.Graph, name: str, source: ir.Value, axis: int, added: list[ir.Node], number: np.ndarray | float = 0.0
) -> ir.Value:
    """A slice to append to ``source`` along ``axis``, filled with ``number``. Its nodes are appended to ``added``."""
    size = ir.node('Shape', [source])
    shape = _shape_of_one(graph, name, size.outputs[0], [axis], len(source.shape))
    value = ir.tensor(np.full(1, number, source.dtype.numpy()))
    filled = ir.node('ConstantOfShape', [shape.outputs[0]], attributes={'value': value})
    added += [size, shape, filled]
    return filled.outputs[0]


def fix_empty_sorts(model: ir.Model, batch: str) -> None:
    """Gives TopK an additional row if there may be none: without rows, ONNX Runtime crashes up to 1.23 at least.

    Args:
        model: a model with named dimensions.
        batch: the symbol of the dimension that may be empty; '' for none.
    """
    graph = model.graph
    for node in list(graph.all_nodes()):
        if node.op_type != 'TopK' or node.inputs[0].shape is None:
            continue
        source, sizes = node.inputs[0], list(node.inputs[0].shape)
        rows = range(node.attributes.get_int('axis', -1) % len(sizes))
        empty = next((axis for axis in rows if _may_be_empty(sizes[axis], batch)), None)
        if empty is None:
            continue
        name, before = node.outputs[0].name, list[ir.Node]()
        more = _slice_of(graph, name, source, empty, before)
        before.append(ir.node('Concat', [source, more], attributes={'axis': empty}))
        node.graph.insert_before(node, before)
        node.replace_input_with(0, before[-1].outputs[0])
        ends = [_constant(graph, f'{name}_{what}', np.array([n])) for what, n in (('0', 0), ('-1', -1), ('row', empty))]
        for result in node.outputs:
            if users := list(result.uses()):
                without = ir.node('Slice', [result, *ends])
                node.graph.insert_after(node, without)
                _replace(graph, result, without.outputs[0], users)
            result.shape = None


def _shape_of_one(graph: ir.Graph, name: str, size: ir.Value, axes: list[int], rank: int) -> ir.Node:
    """The shape ``size`` with 1 in place of the axes."""
    is_axis = _constant(graph, f'{name}_is_axis', np.isin(np.arange(rank), axes))
    return ir.node('Where', [is_axis, _constant(graph, f'{name}_one', np.ones(1, np.int64)), size])


def guard_shapes(model: ir.Model, signature: Signature) -> None:
    """Makes all outputs but counts, or the input that the signature names, NaN if dimensions of the same name differ.

    ONNX Runtime does not compare them, and would silently broadcast a dimension of size 1.
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
    """Replaces an input by its product with ``scalar``, which ``nodes`` compute."""
    users = [(user, index) for user, index in value.uses() if user not in nodes]
    guarded = ir.node('Mul', [value, scalar])
    guarded.outputs[0].shape, guarded.outputs[0].type = value.shape, value.type
    graph.insert_before(graph[0], [*nodes, guarded])
    for user, index in users:
        user.replace_input_with(index, guarded.outputs[0])


def _replace(graph: ir.Graph, old: ir.Value, new: ir.Value, users: Sequence[tuple[ir.Node, int]]) -> None:
    """Replaces ``old`` by ``new`` in ``users`` and in the graph's outputs, which keep their names."""
    new.shape, new.type = old.shape, old.type
    for user, index in users:
        user.replace_input_with(index, new)
    for at, output in enumerate(graph.outputs):
        if output is old:
            graph.outputs[at] = new
            # the operator makes the name unique: an output may be replaced twice
            old.name, new.name = f'{old.name}_before_{new.producer().op_type}', old.name


def _constant(graph: ir.Graph, name: str, array: np.ndarray) -> ir.Value:
    tensor = ir.tensor(array, name=name)
    value = ir.Value(name=name, const_value=tensor, type=ir.TensorType(tensor.dtype), shape=tensor.shape)
    graph.register_initializer(value)
    return value
