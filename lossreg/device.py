"""Runs an exported training step where PyTorch is not: numpy, onnxruntime and safetensors are all it needs.

This file stands by itself; ``lossreg.export_train_step`` lays a copy of it beside each step::

    from device import TrainStep

    step = TrainStep('step.onnx')
    for images, teacher_logits in batches:
        loss = step(images, teacher_logits, lr=0.05)
    step.save('trained.safetensors')
    step.export_inference('student.onnx')
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import ArrayLike, NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

Array = NDArray[Any]

METADATA_KEY = 'lossreg.json'
KIND = 'train_step'
GRAPH_KEY = 'graph_sha256'
PROVIDERS = {'cpu': 'CPUExecutionProvider', 'cuda': 'CUDAExecutionProvider'}


class StateError(ValueError):
    """A file that is not a state of this training step."""


class NonFiniteError(FloatingPointError):
    """A loss, gradient, running statistic or learning rate is not finite; parameters and state have not changed."""


class TrainStep:
    """A training step with its parameters and state.

    Args:
        path: the ``step.onnx`` that ``lossreg.export_train_step`` wrote. The initial parameters are read from the
            ``.safetensors`` file of the same name; ``apply.onnx``, ``eval.onnx`` and ``predict.onnx`` beside it are
            loaded when they are needed.
        device: ``cpu`` or ``cuda``.
        threads: how many threads ONNX Runtime may use; 0 leaves the choice to it.

    Raises:
        FileNotFoundError: a file is missing.
        StateError: the file is no training step, or the initial parameters are those of another.
        RuntimeError: ``device='cuda'``, but ONNX Runtime fell back to the CPU.

    Attributes:
        results: of the last step: the loss, its parts, and the norm of the gradients.
        default_lr: the learning rate of a step that is given none.
    """

    def __init__(self, path: str | os.PathLike[str], device: str = 'cpu', threads: int = 0) -> None:
        self._path = Path(path)
        self._device, self._threads = device, threads
        self._graphs: dict[str, _Graph] = {}
        self._main = self._graph(self._path)
        meta = self._main.metadata
        if meta.get('kind') != KIND:
            raise StateError(f'{self._path.name} is not a training step of lossreg')
        self.default_lr = float(meta['optimizer']['lr'])
        self._accumulate = int(meta['accumulate'])
        self._waiting = 0
        self.results: dict[str, float] = {}
        self._sha256 = hashlib.sha256(self._path.read_bytes()).hexdigest()
        initial, found = _read_state(self._path.with_suffix('.safetensors'))
        if found != self._sha256:
            raise StateError(f'{self._path.with_suffix(".safetensors").name} belongs to another {self._path.name}')
        self._expected: dict[str, tuple[Any, ...]] = {
            name: (value.shape, value.dtype) for name, value in initial.items()
        }
        self._state = {name: self._value(value) for name, value in initial.items()}
        self._spare: dict[str, Any] = {}

    @property
    def inputs(self) -> list[dict[str, Any]]:
        """What a step takes, in order: names, shapes (``N`` is the batch, of any size) and dtypes."""
        return [entry for entry in self._main.metadata['inputs'] if entry['name'] != 'lr']

    @property
    def parameters(self) -> dict[str, Array]:
        """The parameters as they are now, by name; copies, which later steps do not change."""
        return {
            name.removeprefix('parameter.'): value.numpy().copy()
            for name, value in self._state.items()
            if name.startswith('parameter.')
        }

    def state_dict(self) -> dict[str, Array]:
        """Parameters and running statistics by the student's own names, as PyTorch's ``load_state_dict`` takes them."""
        found = {}
        for key, value in self._state.items():
            kind, _, name = key.partition('.')
            if kind in ('parameter', 'buffer') and not name.startswith('loss.'):
                found[name] = value.numpy().copy()
        return found | {name: found[first] for name, first in self._main.metadata['tied'].items() if first in found}

    @property
    def steps(self) -> int:
        """How often the optimizer has stepped."""
        return int(self._state['step'].numpy())

    def __call__(self, *arrays: ArrayLike, lr: float | None = None) -> float:
        """Runs one step on a batch: the student's inputs, then the loss's targets. Returns the loss.

        A step exported with ``accumulate=k`` lets the optimizer step at every k-th call.

        Raises:
            ValueError: arrays that do not fit, named.
            NonFiniteError: loss, gradient or learning rate is not finite; nothing has changed.
        """
        feeds = _checked(self.inputs, arrays)
        if self._accumulate == 1:
            self.results = self._run(self._main, feeds, lr)
            return self._loss()
        # what the optimizer's half would refuse when the gradients are added up already
        apply = self._graph(self._path.with_name('apply.onnx'))
        if lr is not None and not abs(lr) <= float(np.finfo(np.float32).max):
            raise NonFiniteError(f'lr {lr:g}: not finite; parameters and state are unchanged')
        self.results = self._run(self._main, feeds, None)
        self._waiting += 1
        if self._waiting == self._accumulate:
            self.results |= self._run(apply, {}, lr)
            self._waiting = 0
        return self._loss()

    def evaluate(self, *arrays: ArrayLike) -> dict[str, Array]:
        """The loss of a batch and the student's outputs, in evaluation mode, with the parameters as they are now."""
        return self._infer('eval.onnx', arrays)

    def predict(self, *arrays: ArrayLike) -> dict[str, Array]:
        """The student's outputs for a batch, in evaluation mode, with the parameters as they are now."""
        return self._infer('predict.onnx', arrays)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes parameters and state to a safetensors file, whole or not at all."""
        arrays = {name: np.asarray(value.numpy(), order='C') for name, value in self._state.items()}
        _write(Path(path), save(arrays, metadata={GRAPH_KEY: self._sha256, 'waiting': str(self._waiting)}))

    def load(self, path: str | os.PathLike[str]) -> None:
        """Takes parameters and state from a file that :meth:`save` wrote.

        Raises:
            StateError: it is no such file, or that of another training step; nothing has changed then.
        """
        arrays, found = _read_state(Path(path))
        for name in sorted(self._expected.keys() | arrays.keys()):
            if name not in arrays:
                raise StateError(f'{Path(path).name} has no {name}, which this training step has')
            if name not in self._expected:
                raise StateError(f'{Path(path).name} has {name}, which this training step has not')
            shape, dtype = self._expected[name]
            if arrays[name].shape != shape or arrays[name].dtype != dtype:
                raise StateError(
                    f'{name} is {arrays[name].dtype}{list(arrays[name].shape)} in {Path(path).name}, '
                    f'but {dtype}{list(shape)} in this training step'
                )
        if found != self._sha256:
            raise StateError(f'{Path(path).name} was saved by another {self._path.name}: their sha256 differ')
        with safe_open(str(path), framework='numpy') as file:
            self._waiting = int((file.metadata() or {}).get('waiting', '0'))
        self._state = {name: self._value(value) for name, value in arrays.items()}

    def export_inference(self, path: str | os.PathLike[str]) -> None:
        """Writes the student as a plain ONNX file that holds the parameters as they are now."""
        model = self._path.with_name('predict.onnx').read_bytes()
        _write(Path(path), bake(model, {name: value.numpy() for name, value in self._state.items()}))

    def _loss(self) -> float:
        """What was differentiated: the loss, or the sum of several."""
        return sum(self.results[name] for name in self._main.metadata['losses'])

    def _graph(self, path: Path) -> _Graph:
        if path.name not in self._graphs:
            self._graphs[path.name] = _Graph(path, self._device, self._threads)
        return self._graphs[path.name]

    def _value(self, array: Array) -> Any:
        return onnxruntime.OrtValue.ortvalue_from_numpy(np.asarray(array, order='C'), self._device, 0)

    def _run(self, graph: _Graph, feeds: Mapping[str, Array], lr: float | None) -> dict[str, float]:
        """One run, whose new state takes the place of the old only if all is finite. No parameter is copied."""
        binding = graph.session.io_binding()
        for name, array in feeds.items():
            binding.bind_cpu_input(name, array)
        if any(entry['name'] == 'lr' for entry in graph.metadata['inputs']):
            binding.bind_cpu_input('lr', np.array(self.default_lr if lr is None else lr, np.float32))
        for name in graph.metadata['state']:
            binding.bind_ortvalue_input(name, self._state[name])
        changed = [name.removeprefix('next_') for name in graph.outputs if name.startswith('next_')]
        for name in changed:
            if name not in self._spare:
                self._spare[name] = self._value(np.zeros_like(self._state[name].numpy()))
            binding.bind_ortvalue_output(f'next_{name}', self._spare[name])
        scalars = graph.metadata['outputs']
        for name in scalars:
            binding.bind_output(name)
        graph.session.run_with_iobinding(binding)
        returned = dict(zip([*(f'next_{name}' for name in changed), *scalars], binding.get_outputs(), strict=True))
        results = {name: float(np.sum(returned[name].numpy())) for name in scalars}
        if not results.pop('ok'):
            shown = ', '.join(f'{name} {value:g}' for name, value in results.items())
            raise NonFiniteError(
                f'{shown}: a loss, gradient, running statistic or learning rate is not finite, or labels or sizes '
                'do not fit; parameters and state are unchanged'
            )
        for name in changed:
            self._state[name], self._spare[name] = self._spare[name], self._state[name]
        return results

    def _infer(self, file: str, arrays: Sequence[ArrayLike]) -> dict[str, Array]:
        graph = self._graph(self._path.with_name(file))
        binding = graph.session.io_binding()
        for name, array in _checked(graph.metadata['inputs'], arrays).items():
            binding.bind_cpu_input(name, array)
        for name in graph.metadata['state']:
            binding.bind_ortvalue_input(name, self._state[name])
        for name in graph.outputs:
            binding.bind_output(name)
        graph.session.run_with_iobinding(binding)
        return {name: value.numpy() for name, value in zip(graph.outputs, binding.get_outputs(), strict=True)}


class _Graph:
    """An ONNX file with a session for it."""

    def __init__(self, path: Path, device: str, threads: int) -> None:
        if not path.is_file():
            raise FileNotFoundError(f'{path} does not exist or is no file')
        if device not in PROVIDERS:
            raise ValueError(f'device is {device!r}, but must be one of {", ".join(PROVIDERS)}')
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 4
        provider = PROVIDERS[device]
        model = path.read_bytes()
        try:
            self.session = onnxruntime.InferenceSession(model, options, providers=[provider])
        except Exception as error:  # ONNX Runtime's errors have no common class
            raise StateError(f'{path.name} cannot be loaded: {error}; export it again') from error
        chosen = self.session.get_providers()[0]
        if chosen != provider:
            raise RuntimeError(f'ONNX Runtime fell back to {chosen} where {provider} was asked for')
        self.metadata = json.loads(self.session.get_modelmeta().custom_metadata_map.get(METADATA_KEY, '{}'))
        self.outputs = [output.name for output in self.session.get_outputs()]


def _checked(specs: Sequence[Mapping[str, Any]], arrays: Sequence[ArrayLike]) -> dict[str, Array]:
    """The arrays by name, in the dtypes that a graph takes.

    Raises:
        ValueError: their number, a shape or a dtype is wrong.
    """
    names = [spec['name'] for spec in specs]
    if len(arrays) != len(specs):
        raise ValueError(f'{len(arrays)} arrays given, but {len(specs)} are needed: {", ".join(names)}')
    feeds: dict[str, Array] = {}
    batch: dict[str, tuple[str, int]] = {}
    for spec, given in zip(specs, arrays, strict=True):
        name, array = spec['name'], np.asarray(given)
        wanted = np.dtype(spec['dtype'])
        if array.dtype.kind != wanted.kind:
            raise ValueError(f'{name} holds {array.dtype}, but must hold {wanted}')
        shape = spec['shape']
        if array.ndim != len(shape):
            raise ValueError(f'{name} has shape {list(array.shape)}, but must have [{", ".join(shape)}]')
        for size, dim in zip(array.shape, shape, strict=True):
            if dim.isdigit() and size != int(dim):
                raise ValueError(f'{name} has shape {list(array.shape)}, but must have [{", ".join(shape)}]')
            first, known = batch.setdefault(dim, (name, size))
            if not dim.isdigit() and known != size:
                raise ValueError(f'{first} holds {known} samples, but {name} holds {size}')
        feeds[name] = np.asarray(array, wanted, order='C')
    return feeds


def _read_state(path: Path) -> tuple[dict[str, Array], str]:
    """The arrays of a state file, and the sha256 of the graph they belong to."""
    if not path.is_file():
        raise FileNotFoundError(f'{path} does not exist or is no file')
    try:
        with safe_open(str(path), framework='numpy') as file:
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  not a dict
            found = (file.metadata() or {}).get(GRAPH_KEY, '')
    except SafetensorError as error:
        raise StateError(f'{path.name} is no safetensors file: {error}') from error
    return arrays, found


def _write(path: Path, data: bytes) -> None:
    """Writes a file whole or not at all."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f'.{path.name}.')
    try:
        with os.fdopen(handle, 'wb') as file:
            file.write(data)
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except OSError:
        os.unlink(temporary)
        raise


# Baking parameters into a model takes two fields of ONNX's protobuf: no need for a library that a device may lack.

MODEL_GRAPH, GRAPH_NODE, GRAPH_INITIALIZER, GRAPH_INPUT, VALUE_NAME = 7, 1, 5, 11, 1
TENSOR_DIMS, TENSOR_TYPE, TENSOR_NAME, TENSOR_RAW = 1, 2, 8, 9
TENSOR_TYPES = {'float32': 1, 'int64': 7, 'float64': 11, 'int32': 6, 'bool': 9}
VARINT, BYTES = 0, 2


def bake(model: bytes, values: Mapping[str, Array]) -> bytes:
    """An ONNX model whose inputs of these names have become constants that it holds."""
    out = bytearray()
    for number, raw, content in _fields(model):
        out += _field(number, _baked_graph(content, values)) if number == MODEL_GRAPH else raw
    return bytes(out)


def _baked_graph(graph: bytes, values: Mapping[str, Array]) -> bytes:
    nodes = b''.join(content for number, _, content in _fields(graph) if number == GRAPH_NODE)
    out = bytearray()
    for number, raw, content in _fields(graph):
        if number == GRAPH_INPUT:
            name = next(text for field, _, text in _fields(content) if field == VALUE_NAME).decode()
            if name in values:
                # one that no node takes, such as a count of batches, is dropped
                out += _field(GRAPH_INITIALIZER, _tensor(name, values[name])) if name.encode() in nodes else b''
                continue
        out += raw
    return bytes(out)


def _tensor(name: str, array: Array) -> bytes:
    dims = b''.join(_key(TENSOR_DIMS, VARINT) + _varint(size) for size in array.shape)
    kind = _key(TENSOR_TYPE, VARINT) + _varint(TENSOR_TYPES[array.dtype.name])
    raw = np.asarray(array, order='C').astype(array.dtype.newbyteorder('<')).tobytes()
    return dims + kind + _field(TENSOR_NAME, name.encode()) + _field(TENSOR_RAW, raw)


def _fields(message: bytes) -> Iterator[tuple[int, bytes, bytes]]:
    """The fields of a protobuf message: the number, all its bytes, and the content of those with a length."""
    at = 0
    while at < len(message):
        start = at
        key, at = _read_varint(message, at)
        number, wire = key >> 3, key & 7
        content = b''
        if wire == VARINT:
            _, at = _read_varint(message, at)
        elif wire == BYTES:
            size, at = _read_varint(message, at)
            content, at = message[at : at + size], at + size
        else:  # eight bytes or four
            at += {1: 8, 5: 4}[wire]
        yield number, message[start:at], content


def _read_varint(message: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = message[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def _key(number: int, wire: int) -> bytes:
    return _varint(number << 3 | wire)


def _field(number: int, content: bytes) -> bytes:
    return _key(number, BYTES) + _varint(len(content)) + content
