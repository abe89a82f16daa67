"""Traces a unit, alone or with its gradient, to a ``torch.export`` program whose dimensions are symbolic.

``torch.export`` cannot trace autograd. ``make_fx`` can: it runs forward and backward on symbolic shapes and
records both as plain operators. Its graph is then exported like any module.
"""

from __future__ import annotations

import operator
import re
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch._dynamo.source import ConstantSource
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.export import Dim, ExportedProgram
from torch.fx.experimental.proxy_tensor import make_fx
from torch.fx.experimental.symbolic_shapes import DimDynamic, ShapeEnv, StatelessSymbolicContext

from lossreg.errors import DeclinedError
from lossreg.exporters.decompositions import loss_decompositions
from lossreg.exporters.signature import Signature
from lossreg.samples import draw
from lossreg.unit import FlatLoss, Unit

IDENTIFIER = re.compile(r'\W')
"""Characters that a Python name cannot hold, such as the dots in names of parameters."""


def trace(unit: Unit) -> ExportedProgram:
    """The exported program of a unit, with inputs and outputs in exported order, and inputs under their names."""
    examples = tuple((draw(unit) if unit.examples is None else unit.examples).values())
    return trace_module(FlatLoss(unit), examples, Signature.of(unit), loss_decompositions())


def trace_module(
    module: nn.Module, examples: tuple[Tensor, ...], signature: Signature, decompositions: Mapping[Any, Any]
) -> ExportedProgram:
    """The exported program of a module that takes and returns the tensors of ``signature``, and may run autograd."""
    # symbolic sizes rarely recur, so the cache of fake tensors only costs time, a fifth of the total
    with warnings.catch_warnings(), torch._dynamo.config.patch(fake_tensor_cache_enabled=False):
        warnings.simplefilter('ignore', FutureWarning)
        graph = _traced(module, examples, signature, decompositions)
        if _writes_through_views(graph):
            # a second trace, so only if needed; `functionalize` does not support autograd, hence of the graph
            graph = _traced(torch.func.functionalize(graph), examples, signature, decompositions)
            graph.graph.eliminate_dead_code()
            _refuse_written_inputs(graph, signature)
        _name_inputs(graph, signature)
        _write_nothing_in_place(graph)
        _give_sizes_as_tensors(graph)
        _tie_dimensions(graph, signature)
        dims = tuple(dict.fromkeys(port.dynamic, Dim.DYNAMIC) or None for port in signature.inputs)
        program = torch.export.export(graph, examples, dynamic_shapes=dims)
    _forget_sources(program)
    return program


def _traced(
    function: Callable[..., Any],
    examples: tuple[Tensor, ...],
    signature: Signature,
    decompositions: Mapping[Any, Any],
) -> torch.fx.GraphModule:
    tracer = make_fx(
        function, tracing_mode='symbolic', decomposition_table=dict(decompositions), _allow_non_fake_inputs=True
    )
    graph: torch.fx.GraphModule = tracer(*_symbolic(examples, signature))
    return graph


def _symbolic(examples: tuple[Tensor, ...], signature: Signature) -> list[Tensor]:
    """The examples as fake tensors, with symbols for the signature's dynamic sizes and numbers for the others.

    ``make_fx`` alone would make every size a symbol, and tracing a network would take ten times as long.
    """
    mode = FakeTensorMode(shape_env=ShapeEnv(), allow_non_fake_inputs=True)
    made: list[Tensor] = []
    for number, (example, port) in enumerate(zip(examples, signature.inputs, strict=True)):
        sizes = [DimDynamic.DUCK if axis in port.dynamic else DimDynamic.STATIC for axis in range(example.dim())]
        context: StatelessSymbolicContext[Any, Any] = StatelessSymbolicContext(dynamic_sizes=sizes)
        source = ConstantSource(f'input{number}')
        made.append(mode.from_tensor(example, source=source, symbolic_context=context))
    return made


def dimension_names(signature: Signature) -> tuple[dict[int, Any] | None, ...]:
    """The dynamic dimensions of each input for the ONNX exporter, each named at its first place only.

    The exporter warns if a name is given twice; the other places are tied to the first by the program's guards.
    """
    named: set[str] = set()
    shapes: list[dict[int, Any] | None] = []
    for port in signature.inputs:
        dims: dict[int, Any] = {}
        for axis, dim in port.dynamic.items():
            dims[axis] = Dim.DYNAMIC if dim in named else dim
            named.add(dim)
        shapes.append(dims or None)
    return tuple(shapes)


def _name_inputs(graph: torch.fx.GraphModule, signature: Signature) -> None:
    placeholders = [node for node in graph.graph.nodes if node.op == 'placeholder']
    taken: set[str] = set()
    for number, (node, port) in enumerate(zip(placeholders, signature.inputs, strict=True)):
        name = IDENTIFIER.sub('_', port.name)
        node.target = node.name = f'{name}_{number}' if name in taken else name
        taken.add(node.name)


def _tie_dimensions(graph: torch.fx.GraphModule, signature: Signature) -> None:
    """Makes the export guard dimensions that must be equal: some operators do not compare them (gather, matmul)."""
    nodes = graph.graph
    placeholders = {p.name: n for p, n in zip(signature.inputs, nodes.find_nodes(op='placeholder'), strict=True)}
    with nodes.inserting_before(next(node for node in nodes.nodes if node.op != 'placeholder')):
        for places in signature.shared_dimensions():
            first, *others = (
                nodes.call_function(torch.ops.aten.sym_size.int, (placeholders[name], axis)) for name, axis in places
            )
            for other in others:
                nodes.call_function(torch._check, (nodes.call_function(operator.eq, (first, other)),))
    graph.recompile()


def _write_nothing_in_place(graph: torch.fx.GraphModule) -> None:
    """Replaces in-place operators by their functional forms, which saves a second trace.

    Some of autograd's formulas (those of minimum and clamp) write into their own temporaries, and batch normalisation
    into its running statistics. Neither has views, see :func:`_writes_through_views`.
    """
    seen: set[torch.fx.Node] = set()
    for node in graph.graph.nodes:
        seen.add(node)
        functional = _functional(node.target)
        if functional is not None:
            node.target = functional
            node.args[0].replace_all_uses_with(node, delete_user_cb=lambda user: user not in seen)
    graph.recompile()


def _writes_through_views(graph: torch.fx.GraphModule) -> bool:
    """Whether an operator writes in place into an input, or into memory shared with another value."""
    base: dict[torch.fx.Node, torch.fx.Node] = {}
    views: set[torch.fx.Node] = set()
    for node in graph.graph.nodes:
        base[node] = node
        if not isinstance(node.target, torch._ops.OpOverload):
            continue
        schema = node.target._schema
        shared = [
            node.args[i]
            for i, a in enumerate(schema.arguments)
            if a.alias_info is not None and i < len(node.args) and isinstance(node.args[i], torch.fx.Node)
        ]
        if not shared or not any(r.alias_info is not None for r in schema.returns):
            continue
        base[node] = base[shared[0]]
        if _is_in_place(node.target):
            if base[node] in views or base[node].op == 'placeholder' or _functional(node.target) is None:
                return True
        else:
            views.add(base[node])
    return False


def _refuse_written_inputs(graph: torch.fx.GraphModule, signature: Signature) -> None:
    """Raises DeclinedError if an input is overwritten, for which functionalising leaves a copy into the input."""
    placeholders = [node for node in graph.graph.nodes if node.op == 'placeholder']
    for node in graph.graph.nodes:
        if node.target is torch.ops.aten.copy_.default and node.args[0] in placeholders:
            name = signature.inputs[placeholders.index(node.args[0])].name
            raise DeclinedError(f'{signature.name} writes into its input {name} in place; let it write into a copy')


def _give_sizes_as_tensors(graph: torch.fx.GraphModule) -> None:
    """Switches arithmetic with size-dependent numbers to its tensor form: the exporter has such numbers as tensors."""
    aten = torch.ops.aten
    known = {getattr(aten, name).Scalar: getattr(aten, name).Tensor for name in ('add', 'sub', 'mul', 'div')}
    for node in graph.graph.nodes:
        if node.target in known and isinstance(node.args[1], torch.fx.Node):
            node.target = known[node.target]
    graph.recompile()


def _is_in_place(target: Any) -> bool:
    return isinstance(target, torch._ops.OpOverload) and target._schema.name.endswith('_')


def _functional(target: Any) -> Any:
    """The functional form of an in-place operator; None if ``target`` is not in place, or has no such form.

    It is found by its arguments, because the name of the overload may differ (``pow_.Scalar``, ``pow.Tensor_Scalar``).
    """
    if not _is_in_place(target):
        return None
    packet = getattr(torch.ops.aten, target._schema.name.removeprefix('aten::').rstrip('_'), None)
    if packet is None:
        return None
    arguments = [(a.name, str(a.type)) for a in target._schema.arguments]
    overloads = (getattr(packet, name) for name in packet.overloads())
    return next((o for o in overloads if [(a.name, str(a.type)) for a in o._schema.arguments] == arguments), None)


def _forget_sources(program: ExportedProgram) -> None:
    """Drops metadata that differs between machines and runs: stack traces, source paths and object ids."""
    modules: list[nn.Module] = [program.graph_module, *program.graph_module.modules()]
    for module in modules:
        if isinstance(module, torch.fx.GraphModule):
            for node in module.graph.nodes:
                node.meta = {key: node.meta[key] for key in ('val', 'tensor_meta') if key in node.meta}
