"""ONNX: one file of standard operators, with a symbolic dimension for each one the spec names, and no source paths."""

from __future__ import annotations

import logging
import math
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from copy import copy
from functools import cache
from typing import Any
from unittest import mock

import torch
from torch.export import ExportedProgram

from lossreg.artefact import METADATA_KEY, encode
from lossreg.errors import CheckError, DeclinedError, MissingBackendError
from lossreg.exporters.signature import Signature
from lossreg.exporters.trace import dimension_names


def to_onnx(program: ExportedProgram, signature: Signature, opset: int) -> bytes:
    """A traced program as an ONNX model.

    Raises:
        MissingBackendError: onnx or onnxscript is not installed.
        CheckError: the model is invalid.
        DeclinedError: torch cannot export this opset.
    """
    try:
        import onnx
        from onnxscript import ir

        from lossreg.exporters import onnx_graph
    except ImportError as error:
        raise MissingBackendError(f"{error.name} is missing; install it with pip install 'lossreg[export]'") from error
    with _quiet_exporter():
        model: ir.Model = _translate(program, signature, opset)
        onnx_graph.tidy(model)
    onnx_graph.fix_empty_reductions(model, signature.batch)
    onnx_graph.fix_empty_sorts(model, signature.batch)
    onnx_graph.fix_empty_products(model)
    onnx_graph.fix_double_exponentials(model)
    onnx_graph.fix_double_maxima(model)
    onnx_graph.fix_unused_scan_results(model)
    onnx_graph.fix_open_clips(model)
    onnx_graph.fix_unit_quotients(model)
    onnx_graph.fix_integer_pads(model)
    onnx_graph.fix_boolean_tiles(model)
    onnx_graph.guard_shapes(model, signature)
    onnx_graph.drop_unused(model)
    onnx_graph.name_uniquely(model)
    onnx_graph.strip(model)
    model.metadata_props[METADATA_KEY] = encode(signature.metadata)
    model.producer_name, model.producer_version = 'lossreg', ''
    model.graph.name = signature.name
    proto = ir.to_proto(model)
    proto.ir_version = onnx.helper.find_min_ir_version_for(proto.opset_import)
    try:
        onnx.checker.check_model(proto, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise CheckError(f'{signature.name} exports to an invalid ONNX model: {error}') from error
    foreign = {node.domain for node in proto.graph.node if node.domain not in ('', 'ai.onnx')}
    if foreign or proto.functions:
        raise CheckError(f'{signature.name} exports to operators outside the ONNX standard: {sorted(foreign)}')
    return bytes(proto.SerializeToString(deterministic=True))


def _translate(program: ExportedProgram, signature: Signature, opset: int) -> Any:
    with warnings.catch_warnings(), _registry_built_once(), _decomposed_once():
        warnings.simplefilter('ignore')
        exported = torch.onnx.export(
            program,
            (),
            dynamo=True,
            verbose=False,
            optimize=False,  # it drops additions of up to 1e-8; `tidy` makes exact changes only
            opset_version=opset,
            dynamic_shapes=dimension_names(signature),
            input_names=[port.name for port in signature.inputs],
            output_names=list(signature.outputs),
            custom_translation_table=_translations(),
        )
    if exported is None:
        raise CheckError(f'{signature.name}: the exporter returned nothing')
    made = exported.model.opset_imports['']
    if made != opset:
        raise DeclinedError(f'torch {torch.__version__} cannot export opset {opset}; it makes {made}')
    return exported.model


@cache
def _translations() -> dict[Any, Any]:
    """Translations of operators that the exporter lacks or rounds, or that have no kernel in ONNX Runtime."""
    from onnxscript import ir
    from onnxscript import opset18 as op

    from lossreg.exporters.arc_tangent import arc_tangent

    def sort(x: Any, stable: bool = False, dim: int = -1, descending: bool = False) -> Any:
        # TopK keeps the order of equal elements, so it is stable
        return op.TopK(x, op.Gather(op.Shape(x), [dim]), axis=dim, largest=int(descending), sorted=1)

    def scalar_tensor(
        s: Any, dtype: int = ir.DataType.FLOAT, layout: str = '', device: str = '', pin_memory: bool = False
    ) -> Any:
        # the exporter's own translation rounds float64 numbers to float32
        if isinstance(s, (bool, int, float)):
            return op.Constant(value=ir.tensor(s, ir.DataType(dtype)))
        return op.Cast(s, to=dtype)

    def cos(x: Any) -> Any:
        # onnxruntime 1.16 has the sine of float64, not the cosine
        if x.dtype == ir.DataType.DOUBLE:
            return op.Sin(op.Add(x, op.Constant(value=ir.tensor(math.pi / 2, ir.DataType.DOUBLE))))
        return op.Cos(x)

    def atan(x: Any) -> Any:
        # onnxruntime's CUDA provider has no kernel for it
        return arc_tangent(x) if x.dtype == ir.DataType.FLOAT else op.Atan(x)

    def any_of(x: Any, dim: int | Sequence[int] | None = None, keepdim: bool = False) -> Any:
        # on empty tensors the exporter's own, a maximum of int64, is True, and its `all` False in onnxruntime 1.23
        x_true = op.Cast(x, to=ir.DataType.BOOL)
        return op.Greater(number_of(x_true, x.shape, dim, keepdim), op.Constant(value_float=0.0))

    def all_of(x: Any, dim: int | Sequence[int] | None = None, keepdim: bool = False) -> Any:
        x_false = op.Not(op.Cast(x, to=ir.DataType.BOOL))
        return op.Equal(number_of(x_false, x.shape, dim, keepdim), op.Constant(value_float=0.0))

    def number_of(mask: Any, shape: Any, dim: int | Sequence[int] | None, keepdim: bool) -> Any:
        number = op.Cast(mask, to=ir.DataType.FLOAT)
        axes = [dim] if isinstance(dim, int) else list(dim or ())
        where = [op.Constant(value_ints=axes)] if axes else []
        return number if len(shape) == 0 else op.ReduceSum(number, *where, keepdims=int(keepdim))

    return {
        torch.ops.aten.all.default: all_of,
        torch.ops.aten.all.dim: all_of,
        torch.ops.aten.all.dims: all_of,
        torch.ops.aten.any.default: any_of,
        torch.ops.aten.any.dim: any_of,
        torch.ops.aten.any.dims: any_of,
        torch.ops.aten.atan.default: atan,
        torch.ops.aten.cos.default: cos,
        torch.ops.aten.scalar_tensor.default: scalar_tensor,
        torch.ops.aten.sort.stable: sort,
        # gradient graphs ask for sizes by this operator
        torch.ops.aten.sym_numel.default: lambda x: op.Size(x),
    }


_registries: dict[Any, Any] = {}


@contextmanager
def _registry_built_once() -> Iterator[None]:
    """Makes the exporter build its operator registry once per process: building it takes longer than most exports.

    There is no public way to pass one in. If a later torch moves this private name, exports only become slower.
    """
    try:
        from torch.onnx._internal.exporter._registration import ONNXRegistry
    except ImportError:
        yield
        return
    build = ONNXRegistry.from_torchlib

    def copy_of_first(opset_version: int | None = None) -> Any:
        if opset_version not in _registries:
            _registries[opset_version] = build() if opset_version is None else build(opset_version)
        registry = copy(_registries[opset_version])
        registry.functions = {target: list(known) for target, known in registry.functions.items()}
        return registry

    with mock.patch.object(ONNXRegistry, 'from_torchlib', staticmethod(copy_of_first)):
        yield


@contextmanager
def _decomposed_once() -> Iterator[None]:
    """Makes the exporter skip its decomposition, a second trace, for programs that need none.

    As above, a later torch without these private names only makes exports slower.
    """
    try:
        from torch.onnx._internal.exporter import _decomp, _fx_passes

        decompose = _fx_passes.decompose_with_registry
        implemented = _decomp.get_onnx_implemented_overloads
        table_without = _decomp.create_onnx_friendly_decomposition_table
    except (ImportError, AttributeError):
        yield
        return

    def decompose_if_needed(program: ExportedProgram, registry: Any) -> ExportedProgram:
        table = table_without(set(implemented(registry)))
        targets = {node.target for node in program.graph.nodes if node.op == 'call_function'}
        return program if targets.isdisjoint(table) else decompose(program, registry)

    with mock.patch.object(_fx_passes, 'decompose_with_registry', decompose_if_needed):
        yield


@contextmanager
def _quiet_exporter() -> Iterator[None]:
    """Silences warnings about missing torchvision, empty attributes and initialisers that are also inputs."""
    loggers = [logging.getLogger(name) for name in ('torch.onnx', 'onnx_ir')]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
