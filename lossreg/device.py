"""Runs an exported training step without PyTorch: it needs only numpy, onnxruntime and safetensors.

This file is self-contained; ``lossreg.export_train_step`` puts a copy of it beside each step::

    from device import TrainStep

    step = TrainStep('step.onnx')
    for images, teacher_logits in batches:
        loss = step(images, teacher_logits, lr=0.05)
    step.save('trained.safetensors')
    step.export_inference('student.onnx')

A step consists of ``a.onnx`` and files beside it: ``a.safetensors`` holds its initial parameters and state,
``a.eval.onnx`` and ``a.predict.onnx`` hold the student in evaluation mode, and ``a.apply.onnx`` (with ``accumulate``)
the optimizer. Each is bound to ``a.onnx`` by its SHA-256, so several steps may share a folder. Rename all files of a
step together, never a single one.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
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
WAITING_KEY = 'waiting'
CONTENT_KEY = 'content_sha256'
FILES_KEY = 'files'
ROLES = ('eval', 'predict', 'apply')
"""The further graphs of a step, by their role."""

MAX_METADATA = 16 << 20
"""An upper limit on the characters of a step's description."""

PROVIDERS = {'cpu': 'CPUExecutionProvider', 'cuda': 'CUDAExecutionProvider'}


class StateError(ValueError):
    """A file that is not the expected training step, graph or state."""


class NonFiniteError(FloatingPointError):
    """A loss, gradient, running statistic or learning rate is not finite; parameters and state have not changed."""


class TrainStep:
    """A training step with its parameters and state.

    Args:
        path: the ``step.onnx`` that ``lossreg.export_train_step`` wrote. The initial parameters are read from the
            ``.safetensors`` file of the same name. ``step.eval.onnx``, ``step.predict.onnx`` and ``step.apply.onnx``
            beside it, if present, are checked against their hashes at once, and loaded when needed.
        device: ``cpu`` or ``cuda``.
        threads: how many threads ONNX Runtime may use; 0 lets it choose.

    Raises:
        FileNotFoundError: a file is missing.
        StateError: a file is not a training step, is damaged, or belongs to another step.
        RuntimeError: ``device='cuda'``, but ONNX Runtime fell back to the CPU.

    Attributes:
        results: the loss, its parts and the gradient norm of the last step.
        default_lr: the learning rate of a step that is given none.
    """

    def __init__(self, path: str | os.PathLike[str], device: str = 'cpu', threads: int = 0) -> None:
        self._path = Path(path)
        self._device, self._threads = device, threads
        model = _read(self._path)
        self._sha256 = hashlib.sha256(model).hexdigest()
        self._main = _Graph(self._path.name, model, device, threads)
        meta = self._main.metadata
        self.default_lr = float(meta['optimizer']['lr'])
        self._accumulate: int = meta['accumulate']
        self._waiting = 0
        self.results: dict[str, float] = {}
        self._files: Mapping[str, str] | None = meta.get(FILES_KEY)  # None: written by version 0.1
        self._graphs: dict[str, _Graph] = {}
        for role in ROLES if self._files is not None else ():
            if self._beside(role).is_file():
                self._model(role)
        self._expected = dict(self._main.state)
        if self._accumulate > 1:
            self._expected |= self._graph('apply').state
        for graph in (self._main, *self._graphs.values()):
            changed = {name.removeprefix('next_') for name in graph.outputs if name.startswith('next_')}
            if 'ok' not in graph.metadata['outputs'] or not changed <= self._expected.keys():
                raise StateError(f'{self._path.name} is not a training step of lossreg, but another graph of one')
        initial, _ = self._read_state(self._path.with_suffix('.safetensors'))
        self._state = {name: self._value(value) for name, value in initial.items()}
        self._spare: dict[str, Any] = {}

    @property
    def inputs(self) -> list[dict[str, Any]]:
        """The inputs of a step, in order: names, shapes (``N`` is the batch, of any size) and dtypes."""
        return [entry for entry in self._main.metadata['inputs'] if entry['name'] != 'lr']

    @property
    def parameters(self) -> dict[str, Array]:
        """The current parameters by name; copies, which later steps do not change."""
        return {
            name.removeprefix('parameter.'): value.numpy().copy()
            for name, value in self._state.items()
            if name.startswith('parameter.')
        }

    def state_dict(self) -> dict[str, Array]:
        """Parameters and running statistics by the student's own names, for PyTorch's ``load_state_dict``."""
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

        With a step exported with ``accumulate=k``, the optimizer steps at every k-th call.

        Raises:
            ValueError: arrays do not fit; the message names them.
            NonFiniteError: loss, gradient or learning rate is not finite; nothing has changed.
        """
        feeds = _checked(self.inputs, arrays)
        if self._accumulate == 1:
            self.results = self._run(self._main, feeds, lr)
            return self._loss()
        # checked before the gradients are accumulated, because the optimizer's graph would refuse it only afterwards
        apply = self._graph('apply')
        if lr is not None and not abs(lr) <= float(np.finfo(np.float32).max):
            raise NonFiniteError(f'lr {lr:g}: not finite; parameters and state are unchanged')
        self.results = self._run(self._main, feeds, None)
        self._waiting += 1
        if self._waiting == self._accumulate:
            self.results |= self._run(apply, {}, lr)
            self._waiting = 0
        return self._loss()

    def evaluate(self, *arrays: ArrayLike) -> dict[str, Array]:
        """The loss of a batch and the student's outputs, in evaluation mode, with the current parameters."""
        return self._infer('eval', arrays)

    def predict(self, *arrays: ArrayLike) -> dict[str, Array]:
        """The student's outputs for a batch, in evaluation mode, with the current parameters."""
        return self._infer('predict', arrays)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes parameters and state to a safetensors file atomically."""
        arrays = {name: np.asarray(value.numpy(), order='C') for name, value in self._state.items()}
        _write(Path(path), save(arrays, metadata=state_metadata(arrays, self._sha256, self._waiting)))

    def load(self, path: str | os.PathLike[str]) -> None:
        """Loads parameters and state from a file that :meth:`save` wrote.

        Raises:
            StateError: the file is not such a file, is damaged, or belongs to another training step; nothing has
                changed then.
        """
        arrays, waiting = self._read_state(Path(path))
        self._state, self._waiting = {name: self._value(value) for name, value in arrays.items()}, waiting

    def export_inference(self, path: str | os.PathLike[str]) -> None:
        """Writes the student as a plain ONNX file with the current parameters."""
        _write(Path(path), bake(self._model('predict'), {name: value.numpy() for name, value in self._state.items()}))

    def _loss(self) -> float:
        """The differentiated value: the loss, or the sum of several losses."""
        return sum(self.results[name] for name in self._main.metadata['losses'])

    def _beside(self, role: str) -> Path:
        """The path of a further graph of this step: ``step.eval.onnx``, or ``eval.onnx`` as written by version 0.1."""
        name = f'{role}.onnx' if self._files is None else f'{self._path.stem}.{role}.onnx'
        return self._path.with_name(name)

    def _model(self, role: str) -> bytes:
        """The bytes of a further graph.

        Raises:
            StateError: they are not the bytes that this step was exported with.
        """
        path = self._beside(role)
        model = _read(path)
        if self._files is None:
            self._refuse_strangers(path)
        elif hashlib.sha256(model).hexdigest() != self._files.get(role):
            raise StateError(
                f'{path.name} is damaged or belongs to another step: its sha256 is not the one in {self._path.name}; '
                'copy all files of the step again, or export it again'
            )
        return model

    def _refuse_strangers(self, path: Path) -> None:
        """Refuses a folder with two steps of version 0.1, whose further graphs share their names.

        Raises:
            StateError: the folder holds another such step.
        """
        for other in sorted(path.parent.glob('*.onnx')):
            state, own = other.with_suffix('.safetensors'), other.with_name(f'{other.stem}.predict.onnx')
            if other != self._path and state.is_file() and not own.is_file():
                raise StateError(
                    f'{path.name} may belong to {other.name} as well as to {self._path.name}; '
                    'export each step again, or keep each in a folder of its own'
                )

    def _graph(self, role: str) -> _Graph:
        if role not in self._graphs:
            path = self._beside(role)
            graph = _Graph(path.name, self._model(role), self._device, self._threads)
            known = self._main.state if role == 'apply' else self._expected
            shared = {name: spec for name, spec in graph.state.items() if name in known or role != 'apply'}
            same = all(graph.metadata[key] == self._main.metadata[key] for key in SHARED)
            if not same or any(known.get(name) != spec for name, spec in shared.items()):
                raise StateError(f'{path.name} belongs to another step than {self._path.name}; export it again')
            self._graphs[role] = graph
        return self._graphs[role]

    def _read_state(self, path: Path) -> tuple[dict[str, Array], int]:
        """The arrays of a state file of this step, and the number of batches that wait for the optimizer.

        Raises:
            FileNotFoundError: the file does not exist.
            StateError: it is damaged, or belongs to another step.
        """
        if not path.is_file():
            raise FileNotFoundError(f'{path} does not exist or is not a file')
        name = path.name
        try:
            with safe_open(str(path), framework='numpy') as file:
                metadata = file.metadata() or {}
                self._check_specs(name, {key: _spec_of(file.get_slice(key)) for key in file.keys()})  # noqa: SIM118
                # read only after its size has been checked
                arrays = {key: file.get_tensor(key) for key in self._expected}
        except (SafetensorError, OSError) as error:
            raise StateError(f'{name} is not a safetensors file, or is damaged: {error}') from error
        graph, waiting = metadata.get(GRAPH_KEY, ''), metadata.get(WAITING_KEY, '0')
        if graph != self._sha256:
            raise StateError(
                f'{name} belongs to another {self._path.name}: their sha256 differ; '
                'take a file that came with this step, or that its TrainStep.save wrote'
            )
        if not re.fullmatch(r'[0-9]{1,9}', waiting) or int(waiting) >= self._accumulate:
            raise StateError(f'{name} is damaged: {waiting[:20]!r} batches cannot wait for the optimizer')
        found = metadata.get(CONTENT_KEY)
        if found is None and self._files is not None:
            raise StateError(f'{name} holds no sha256 of its content; write it with TrainStep.save')
        if found is not None and found != content_digest(arrays, graph, int(waiting)):
            raise StateError(
                f'{name} is damaged or was changed by hand: its content is not that of its sha256; '
                'copy it again, or write it with TrainStep.save'
            )
        return arrays, int(waiting)

    def _check_specs(self, file: str, specs: Mapping[str, tuple[tuple[int, ...], str]]) -> None:
        """Raises StateError unless a state file has exactly this step's tensors."""
        for name in sorted(self._expected.keys() | specs.keys()):
            if name not in specs:
                raise StateError(f'{file} has no {name}, which this training step has')
            if name not in self._expected:
                raise StateError(f'{file} has {name}, which this training step has not')
            if specs[name] != self._expected[name]:
                (shape, dtype), (wanted, kind) = specs[name], self._expected[name]
                raise StateError(
                    f'{name} is {dtype}{list(shape)} in {file}, but {kind}{list(wanted)} in this training step'
                )

    def _value(self, array: Array) -> Any:
        return onnxruntime.OrtValue.ortvalue_from_numpy(np.asarray(array, order='C'), self._device, 0)

    def _run(self, graph: _Graph, feeds: Mapping[str, Array], lr: float | None) -> dict[str, float]:
        """One run, whose new state replaces the old only if all of it is finite. No parameter is copied."""
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

    def _infer(self, role: str, arrays: Sequence[ArrayLike]) -> dict[str, Array]:
        graph = self._graph(role)
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
    """The bytes of an ONNX file, and a session for it.

    Attributes:
        metadata: its metadata, all checked.
        state: shape and dtype, by name, of the tensors carried from step to step.
    """

    def __init__(self, name: str, model: bytes, device: str, threads: int) -> None:
        if device not in PROVIDERS:
            raise ValueError(f'device is {device!r}, but must be one of {", ".join(PROVIDERS)}')
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 4
        provider = PROVIDERS[device]
        try:
            self.session = onnxruntime.InferenceSession(model, options, providers=[provider])
            text = self.session.get_modelmeta().custom_metadata_map.get(METADATA_KEY)
        except Exception as error:  # ONNX Runtime's errors have no common class
            first = next(iter(str(error).splitlines()), '')
            raise StateError(f'{name} cannot be loaded: {first}; copy it again, or export it again') from error
        chosen = self.session.get_providers()[0]
        if chosen != provider:
            raise RuntimeError(f'ONNX Runtime fell back to {chosen} instead of {provider}')
        if text is None:
            raise StateError(f'{name} is not a training step of lossreg')
        self.metadata = _metadata(name, text)
        self.outputs = [output.name for output in self.session.get_outputs()]
        taken = {value.name: value for value in self.session.get_inputs()}
        promised = {entry['name'] for entry in self.metadata['inputs']} | set(self.metadata['state'])
        lacking = sorted(promised ^ taken.keys()) + sorted(set(self.metadata['outputs']) - set(self.outputs))
        if lacking:
            raise StateError(f'{name} is damaged: its metadata and its graph differ in {lacking[0]}; export it again')
        types = {key: TYPES.get(value.type, value.type) for key, value in taken.items()}
        self.state = {key: (tuple(taken[key].shape), types[key]) for key in self.metadata['state']}
        for entry in self.metadata['inputs']:
            if (entry['dtype'], len(entry['shape'])) != (types[entry['name']], len(taken[entry['name']].shape)):
                raise StateError(f'{name} is damaged: its metadata and its graph differ in {entry["name"]}')


TYPES = {'tensor(float)': 'float32', 'tensor(double)': 'float64', 'tensor(float16)': 'float16', 'tensor(bool)': 'bool'}
TYPES |= {f'tensor({sign}int{bits})': f'{sign}int{bits}' for sign in ('', 'u') for bits in (8, 16, 32, 64)}
"""NumPy's names of ONNX Runtime's types."""

SHARED = ('loss', 'config', 'optimizer', 'accumulate', 'trained', 'tied', 'losses')
"""The metadata that all graphs of a step share."""


def _metadata(file: str, text: str) -> dict[str, Any]:
    """The checked metadata of a graph.

    Raises:
        StateError: metadata are missing or invalid.
    """
    try:
        if len(text) > MAX_METADATA:
            raise ValueError('it is too long')
        meta = json.loads(text, parse_constant=_no_number)
        if not isinstance(meta, dict) or meta.get('kind') != KIND:
            raise StateError(f'{file} is not a training step of lossreg')
        _check_metadata(meta)
    except StateError:
        raise
    except (ValueError, TypeError, KeyError, OverflowError, RecursionError) as error:
        reason = f'{error} is missing' if isinstance(error, KeyError) else str(error)
        raise StateError(f'the metadata of {file} is damaged: {reason[:200]}; export it again') from error
    return meta


def _no_number(text: str) -> None:
    raise ValueError(f'{text} is not a number')


def _check_metadata(meta: dict[str, Any]) -> None:
    """Raises KeyError, TypeError or ValueError if something is missing or has the wrong type."""

    def need(good: bool, what: str) -> None:
        if not good:
            raise ValueError(f'{what} is not what a training step has')

    need(isinstance(meta['loss'], str) and isinstance(meta['config'], dict), 'loss or config')
    lr = meta['optimizer']['lr']
    need(isinstance(lr, (int, float)) and not isinstance(lr, bool) and math.isfinite(lr), 'the learning rate')
    need(type(meta['accumulate']) is int and 0 < meta['accumulate'] < 10**9, 'accumulate')
    for key in ('trained', 'losses', 'state', 'outputs'):
        need(isinstance(meta[key], list) and all(isinstance(name, str) for name in meta[key]), key)
    need(isinstance(meta['tied'], dict) and all(isinstance(name, str) for name in meta['tied'].values()), 'tied')
    need(isinstance(meta['inputs'], list), 'inputs')
    for entry in meta['inputs']:
        name, shape, dtype = entry['name'], entry['shape'], entry['dtype']
        need(isinstance(name, str) and isinstance(dtype, str) and dtype in TYPES.values(), 'an input')
        need(isinstance(shape, list) and all(isinstance(dim, str) for dim in shape), f'the shape of {name}')
        need(all(re.fullmatch(r'[0-9]{1,18}|[A-Za-z_]\w*', dim, re.ASCII) for dim in shape), f'the shape of {name}')
    if FILES_KEY in meta:
        files = meta[FILES_KEY]
        good = isinstance(files, dict) and all(isinstance(sha256, str) for sha256 in files.values())
        need(good and set(files) <= set(ROLES), FILES_KEY)


def _checked(specs: Sequence[Mapping[str, Any]], arrays: Sequence[ArrayLike]) -> dict[str, Array]:
    """The arrays by name, in the dtypes that the graph expects.

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
        integers = array.dtype.kind in 'iu' and wanted.kind in 'iu'
        if array.dtype.kind != wanted.kind and not integers:
            raise ValueError(f'{name} holds {array.dtype}, but must hold {wanted}')
        if integers and array.size:
            ends, limits = (int(array.min()), int(array.max())), np.iinfo(wanted)
            if ends[0] < limits.min or ends[1] > limits.max:
                odd = ends[0] if ends[0] < limits.min else ends[1]
                raise ValueError(f'{name} holds {odd}, which {wanted} cannot hold')
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


def state_metadata(arrays: Mapping[str, Array], graph: str, waiting: int = 0) -> dict[str, str]:
    """The metadata of a state file: the step it belongs to, and the SHA-256 of its own content.

    Args:
        arrays: the state.
        graph: the SHA-256 of the step's own graph.
        waiting: the number of batches that wait for the optimizer.
    """
    digest = content_digest(arrays, graph, waiting)
    return {GRAPH_KEY: graph, WAITING_KEY: str(waiting), CONTENT_KEY: digest}


def content_digest(arrays: Mapping[str, Array], graph: str, waiting: int) -> str:
    """The SHA-256 of two lines (the graph's SHA-256 and the number waiting), followed, for each tensor in the order of
    names, by three lines (name, dtype and comma-separated sizes) and its little-endian bytes.
    """
    digest = hashlib.sha256(f'{graph}\n{waiting}\n'.encode())
    for name in sorted(arrays):
        array = arrays[name]
        digest.update(f'{name}\n{array.dtype.name}\n{",".join(map(str, array.shape))}\n'.encode())
        digest.update(np.asarray(array, array.dtype.newbyteorder('<'), order='C').tobytes())
    return digest.hexdigest()


def _spec_of(tensor: Any) -> tuple[tuple[int, ...], str]:
    """Shape and dtype of a tensor in a file, before it is read."""
    return tuple(tensor.get_shape()), SAFETENSORS_TYPES.get(tensor.get_dtype(), tensor.get_dtype())


SAFETENSORS_TYPES = {'BOOL': 'bool'} | {
    f'{short}{bits}': f'{name}{bits}'
    for short, name in (('F', 'float'), ('I', 'int'), ('U', 'uint'))
    for bits in (8, 16, 32, 64)
}
"""NumPy's names of safetensors' types."""


def _read(path: Path) -> bytes:
    """The bytes of a file.

    Raises:
        FileNotFoundError: the file does not exist.
        StateError: it is too large to be a graph.
    """
    if not path.is_file():
        raise FileNotFoundError(f'{path} does not exist or is not a file')
    if path.stat().st_size >= 2 << 30:
        raise StateError(f'{path.name} is larger than an ONNX file can be; copy it again, or export it again')
    return path.read_bytes()


def _write(path: Path, data: bytes) -> None:
    """Writes a file atomically."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f'.{path.name}.')
    try:
        with os.fdopen(handle, 'wb') as file:
            file.write(data)
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except OSError:
        os.unlink(temporary)
        raise


# Baking parameters into a model touches only two fields of ONNX's protobuf, so no protobuf library is needed.

MODEL_GRAPH, GRAPH_NODE, GRAPH_INITIALIZER, GRAPH_INPUT, VALUE_NAME = 7, 1, 5, 11, 1
TENSOR_DIMS, TENSOR_TYPE, TENSOR_NAME, TENSOR_RAW = 1, 2, 8, 9
TENSOR_TYPES = {'float32': 1, 'int64': 7, 'float64': 11, 'int32': 6, 'bool': 9}
VARINT, BYTES = 0, 2


def bake(model: bytes, values: Mapping[str, Array]) -> bytes:
    """An ONNX model in which the inputs of these names have become constants."""
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
                # a value that no node uses, such as a count of batches, is dropped
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
    """The fields of a protobuf message: number, all bytes, and the content if the field has a length."""
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
