"""Traces a unit, alone or with its gradient, to a ``torch.export`` program whose dimensions are symbolic.

``torch.export`` cannot trace autograd. ``make_fx`` can: it runs forward and backward on symbolic shapes and
records both as plain operators. Its graph is then exported like any module.
"""

from __future__ import annotations

import warnings
from functools import cache
from typing import Any

import torch
from torch import nn
from torch._decomp import get_decompositions
from torch.export import Dim, ExportedProgram
from torch.fx.experimental.proxy_tensor import make_fx

from lossreg.errors import MissingBackendError
from lossreg.samples import draw
from lossreg.unit import FlatLoss, Unit

OLDEST_TORCH = (2, 11)


def require_export_layer() -> None:
    """Raises MissingBackendError on a torch too old to export gradients to ONNX and pt2."""
    found = tuple(int(part) for part in torch.__version__.split('+')[0].split('.')[:2])
    if found < OLDEST_TORCH:
        raise MissingBackendError(
            f'exporting to ONNX and pt2 needs torch >= {OLDEST_TORCH[0]}.{OLDEST_TORCH[1]}, found {torch.__version__}; '
            'TorchScript works with this one'
        )


def trace(unit: Unit, grad: bool) -> ExportedProgram:
    """The exported program of a unit. Inputs and outputs come in exported order, the inputs under their names."""
    require_export_layer()
    examples = tuple((draw(unit) if unit.examples is None else unit.examples).values())
    with warnings.catch_warnings():
        warnings.simplefilter('ignore', FutureWarning)
        tracer = make_fx(
            FlatLoss(unit, grad),
            tracing_mode='symbolic',
            decomposition_table=_decompositions(),
            _allow_non_fake_inputs=True,
        )
        graph = tracer(*examples)
        _name_inputs(graph, unit)
        _write_nothing_in_place(graph)
        program = torch.export.export(graph, examples, dynamic_shapes=_dynamic_dims(unit))
    _forget_sources(program)
    return program


@cache
def _decompositions() -> dict[Any, Any]:
    """Operators of gradients that ONNX has no translation for. What is left of them makes the exporter trace again."""
    aten = torch.ops.aten
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
    ]
    return dict(get_decompositions(operators))


def dimension_names(unit: Unit) -> tuple[dict[int, Any] | None, ...]:
    """Each input's dynamic dimensions for the ONNX exporter: named where first met, tied to that one elsewhere.

    The exporter warns where one name is given twice.
    """
    named: set[str] = set()
    shapes: list[dict[int, Any] | None] = []
    for spec in unit.inputs:
        dims: dict[int, Any] = {}
        for axis, dim in enumerate(spec.dims):
            if unit.is_dynamic(dim):
                dims[axis] = Dim.DYNAMIC if dim in named else dim
                named.add(dim)
        shapes.append(dims or None)
    return tuple(shapes)


def _dynamic_dims(unit: Unit) -> tuple[dict[int, Any] | None, ...]:
    return tuple(
        {axis: Dim.DYNAMIC for axis, dim in enumerate(spec.dims) if unit.is_dynamic(dim)} or None
        for spec in unit.inputs
    )


def _name_inputs(graph: torch.fx.GraphModule, unit: Unit) -> None:
    placeholders = [node for node in graph.graph.nodes if node.op == 'placeholder']
    for node, spec in zip(placeholders, unit.inputs, strict=True):
        node.target = node.name = spec.name


def _write_nothing_in_place(graph: torch.fx.GraphModule) -> None:
    """Replaces the writes in autograd's own formulas (those of minimum and clamp), which would cost a second trace.

    They write into what they have just made, of which nobody holds a view.
    """
    aten = torch.ops.aten
    functional = {
        aten.logical_and_.default: aten.logical_and.default,
        aten.masked_fill_.Scalar: aten.masked_fill.Scalar,
    }
    seen: set[torch.fx.Node] = set()
    for node in graph.graph.nodes:
        seen.add(node)
        if node.target in functional:
            node.target = functional[node.target]
            node.args[0].replace_all_uses_with(node, delete_user_cb=lambda user: user not in seen)
    graph.recompile()


def _forget_sources(program: ExportedProgram) -> None:
    """Drops what differs between machines and runs: stack traces, source paths and object ids."""
    modules: list[nn.Module] = [program.graph_module, *program.graph_module.modules()]
    for module in modules:
        if isinstance(module, torch.fx.GraphModule):
            for node in module.graph.nodes:
                node.meta = {key: node.meta[key] for key in ('val', 'tensor_meta') if key in node.meta}
