"""The way to ONNX: what is translated otherwise than torch does, what is refused, and what is left as it was."""

import json
import logging
import sys
from contextlib import suppress

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from modules import Function
from onnxscript import ir

from lossreg.errors import CheckError, DeclinedError, MissingBackendError
from lossreg.exporters import onnx as exporter
from lossreg.exporters import onnx_graph, trace
from lossreg.exporters.signature import Port, Signature


def to_onnx(function, *examples, opset=18):
    """A model of a function whose inputs have a dynamic first dimension."""
    ports = tuple(Port(f'x{i}', ('N', *map(str, x.shape[1:]))) for i, x in enumerate(examples))
    signature = Signature('test', ports, ('y',), {'said': 1}, batch='N')
    program = trace.trace_module(Function(function), examples, signature, {})
    return exporter.to_onnx(program, signature, opset)


def run(model, *arrays):
    session = onnxruntime.InferenceSession(model, providers=['CPUExecutionProvider'])
    return session.run(None, {f'x{i}': np.asarray(array) for i, array in enumerate(arrays)})[0]


def kinds(model):
    return {node.op_type for node in onnx.load_from_string(model).graph.node}


X = torch.tensor([[0.5, -2.0, 0.5], [3.0, -1.0, 0.0]])
MASKS = torch.tensor([[True, False, True], [True, True, True], [False, False, False]])

FUNCTIONS = {
    'sorted': lambda x: 2 * x.sort(dim=1)[0],
    'sorted down': lambda x: x.sort(dim=1, descending=True)[0] + x.sort(dim=1, descending=True)[1],
    'order': lambda x: x.sort(dim=-1, stable=True)[1].float(),
    'cosine': lambda x: x.cos(),
    'cosine in float64': lambda x: x.double().cos(),
    'a number in float64': lambda x: torch.where(x > 0, torch.scalar_tensor(0.1, dtype=torch.float64), x.double()),
    'a size': lambda x: x / x.numel(),
}


@pytest.mark.parametrize('function', FUNCTIONS.values(), ids=FUNCTIONS)
def test_operators_that_are_translated_otherwise(function):
    model = to_onnx(function, X)
    for x in (X, X[:1], 2 * X.flip(0)):
        found, wanted = run(model, x), function(x)
        assert found.dtype == wanted.numpy().dtype
        np.testing.assert_allclose(found, wanted, rtol=1e-6 if wanted.dtype == torch.float32 else 1e-15, atol=1e-15)


QUESTIONS = {
    'any': lambda m: m.any(), 'any along': lambda m: m.any(1), 'any kept': lambda m: m.any(1, keepdim=True),
    'all': lambda m: m.all(), 'all along': lambda m: m.all(1), 'all kept': lambda m: m.all(1, keepdim=True),
    'all of two': lambda m: m.all(dim=(0, 1)), 'any of two': lambda m: m.any(dim=(1, 0)),
}  # fmt: skip


@pytest.mark.parametrize('function', QUESTIONS.values(), ids=QUESTIONS)
def test_whether_any_and_all_are_true_also_of_nothing(function):
    model = to_onnx(lambda m: function(m).float(), MASKS)
    for masks in (MASKS, MASKS[:1], MASKS[1:2], MASKS[2:], MASKS[:0]):
        np.testing.assert_array_equal(run(model, masks), function(masks).float())


def test_the_cosine_of_float64_is_a_sine():
    assert 'Cos' not in kinds(to_onnx(lambda x: x.double().cos(), X))
    assert 'Cos' in kinds(to_onnx(lambda x: x.cos(), X))


def test_what_a_file_says_of_itself():
    model = onnx.load_from_string(to_onnx(lambda x: x + 1, X))
    assert (model.producer_name, model.producer_version) == ('lossreg', '')
    assert (model.graph.name, model.ir_version) == ('test', 8)
    assert [(entry.key, json.loads(entry.value)) for entry in model.metadata_props] == [('lossreg.json', {'said': 1})]


# What is refused


def test_an_operator_outside_the_standard_is_refused(monkeypatch):
    def foreign(model):
        model.graph.append(ir.node('Binarizer', [model.graph.inputs[0]], domain='ai.onnx.ml'))
        model.opset_imports['ai.onnx.ml'] = 3

    monkeypatch.setattr(onnx_graph, 'strip', foreign)
    with pytest.raises(CheckError, match=r"test exports to operators outside the ONNX standard: \['ai\.onnx\.ml'\]"):
        to_onnx(lambda x: x + 1, X)


def test_an_invalid_graph_is_refused(monkeypatch):
    def invalid(model):
        model.graph.outputs[0].shape = ir.Shape([7, 7, 7])

    monkeypatch.setattr(onnx_graph, 'strip', invalid)
    with pytest.raises(CheckError, match='test exports to an invalid ONNX model'):
        to_onnx(lambda x: x + 1, X)


def test_an_opset_that_torch_cannot_make_is_declined():
    with pytest.raises(DeclinedError, match='cannot export opset 99; it makes'):
        to_onnx(lambda x: x + 1, X, opset=99)


def test_a_package_that_is_missing_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, 'onnxscript', None)
    with pytest.raises(MissingBackendError, match='onnxscript is missing; install it with pip'):
        to_onnx(lambda x: x + 1, X)


# What is left as it was


def test_loggers_speak_again_afterwards():
    loggers = [logging.getLogger(name) for name in ('torch.onnx', 'onnx_ir')]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.INFO)
        with suppress(ZeroDivisionError), exporter._quiet_exporter():
            assert {logger.level for logger in loggers} == {logging.ERROR}
            raise ZeroDivisionError
        assert {logger.level for logger in loggers} == {logging.INFO}
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def test_the_table_of_operators_is_built_once_and_copied():
    from torch.onnx._internal.exporter._registration import ONNXRegistry

    own = ONNXRegistry.from_torchlib
    with exporter._registry_built_once():
        first, second = ONNXRegistry.from_torchlib(), ONNXRegistry.from_torchlib()
        known = next(iter(first.functions))
        assert first.functions.keys() == second.functions.keys()
        assert first.functions[known] == second.functions[known]
        assert first is not second
        first.functions[known].clear()
        assert second.functions[known]
        assert ONNXRegistry.from_torchlib().functions[known]
    assert ONNXRegistry.from_torchlib == own
