"""Runtimes, which run a loss eagerly or from the bytes of an artefact and return NumPy arrays by output name."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import replace
from types import MappingProxyType
from typing import Any, Protocol
from unittest import mock

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lossreg.archive import read_archive, refuse_code
from lossreg.artefact import METADATA_KEY, parse_metadata, write_archive
from lossreg.environment import preload_cuda_libraries
from lossreg.errors import MissingBackendError
from lossreg.unit import FlatLoss, Unit

Arrays = dict[str, NDArray[Any]]


class Runtime(Protocol):
    """Anything that maps inputs by name to outputs by name.

    Attributes:
        metadata: the artefact's metadata; empty if there is no artefact.
    """

    metadata: Mapping[str, Any]

    def __call__(self, values: Mapping[str, Tensor]) -> Arrays:
        """Computes the outputs."""
        ...


class Eager:
    """The loss itself, in ``dtype`` on ``device``."""

    metadata: Mapping[str, Any] = MappingProxyType({})

    def __init__(self, unit: Unit, dtype: torch.dtype = torch.float32, device: str = 'cpu') -> None:
        # a copy, because `to` would move the caller's module too
        self._flat = FlatLoss(replace(unit, loss=deepcopy(unit.loss))).to(device)
        self._names = unit.outputs
        self._dtype, self._device = dtype, device

    def __call__(self, values: Mapping[str, Tensor]) -> Arrays:
        """Computes the outputs."""
        tensors = [
            t.to(self._device, self._dtype) if t.is_floating_point() else t.to(self._device) for t in values.values()
        ]
        return _named(self._names, self._flat(*tensors))


class Compiled(Eager):
    """The loss under torch.compile, as one graph with symbolic sizes; autograd differentiates through it.

    Args:
        unit: the unit to run.
        compiler: torch's name of the backend, such as ``inductor``.
        device: the device it runs on.
    """

    def __init__(self, unit: Unit, compiler: str, device: str = 'cpu') -> None:
        super().__init__(unit, device=device)
        # earlier compilations would count towards the limit of graphs, and fix sizes that they have seen
        torch._dynamo.reset()
        self._compiled = self._flat = _CompiledLoss(self._flat.unit, compiler)

    def __call__(self, values: Mapping[str, Tensor]) -> Arrays:
        """Computes the outputs."""
        # sizes of 0, of 1 and wrong ones each need another graph
        with torch._dynamo.config.patch(recompile_limit=64):
            return super().__call__(values)

    @property
    def graphs(self) -> int:
        """The number of graphs compiled so far."""
        return self._compiled.graphs


class _CompiledLoss(FlatLoss):
    def __init__(self, unit: Unit, compiler: str) -> None:
        super().__init__(unit)
        self.graphs = 0
        compile_graph = torch._dynamo.lookup_backend(compiler)

        def counting(graph: torch.fx.GraphModule, examples: list[Tensor]) -> Callable[..., Any]:
            self.graphs += 1
            return compile_graph(graph, examples)

        self._compiled = torch.compile(super()._results, fullgraph=True, dynamic=True, backend=counting)

    def _results(self, named: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
        results: tuple[Tensor, ...] = self._compiled(named)
        return results


class TorchScript:
    """A ``.pt`` artefact, loaded as a user would load it, without lossreg. It is code: load only trusted files."""

    def __init__(self, data: bytes, device: str = 'cpu') -> None:
        read_archive(data)  # raises if the archive is damaged, or compressed
        extra = {METADATA_KEY: ''}
        with warnings.catch_warnings():
            warnings.simplefilter('ignore', DeprecationWarning)
            load_archive: Any = torch.jit.load
            self._module = load_archive(io.BytesIO(data), map_location=device, _extra_files=extra)
        self.metadata: Mapping[str, Any] = parse_metadata(_text(extra[METADATA_KEY]))
        self._device = device

    def __call__(self, values: Mapping[str, Tensor]) -> Arrays:
        """Computes the outputs."""
        with torch.enable_grad():
            outputs = self._module(**{name: t.to(self._device) for name, t in values.items()})
        return _named(self.metadata['outputs'], outputs if isinstance(outputs, tuple) else (outputs,))


class Pt2:
    """A ``.pt2`` artefact. It is refused if loading it would run code."""

    def __init__(self, data: bytes) -> None:
        members = read_archive(data)
        refuse_code(members)
        data = write_archive(members)  # only the members that were checked
        extra = {METADATA_KEY: ''}
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')  # torch warns about the buffers of its own archives
            with _plain_tensors():
                self._module = torch.export.load(io.BytesIO(data), extra_files=extra).module()
        self.metadata: Mapping[str, Any] = parse_metadata(_text(extra[METADATA_KEY]))

    def __call__(self, values: Mapping[str, Tensor]) -> Arrays:
        """Computes the outputs."""
        order = [i['name'] for i in self.metadata['inputs']]
        return _named(self.metadata['outputs'], self._module(*(values[name] for name in order)))


class OnnxRuntime:
    """An ``.onnx`` artefact on the CPU or the CUDA provider.

    Raises:
        MissingBackendError: the CUDA provider cannot run here. ONNX Runtime itself would fall back to the CPU
            silently.
    """

    def __init__(self, data: bytes, provider: str = 'cpu') -> None:
        ort = import_onnxruntime()
        if provider == 'cuda':
            preload_cuda_libraries()
        options = ort.SessionOptions()
        options.log_severity_level = 4  # failures are raised as well
        options.intra_op_num_threads = 1
        options.add_session_config_entry('session.record_ep_graph_assignment_info', '1')
        self.provider = {'cpu': 'CPUExecutionProvider', 'cuda': 'CUDAExecutionProvider'}[provider]
        self._session = ort.InferenceSession(data, options, providers=[self.provider])
        said = self._session.get_modelmeta().custom_metadata_map.get(METADATA_KEY)
        self.metadata: Mapping[str, Any] = {} if said is None else parse_metadata(said)
        chosen = self._session.get_providers()
        if chosen[0] != self.provider:
            raise MissingBackendError(
                f'ONNX Runtime fell back to {chosen[0]} instead of {self.provider}; '
                'run `lossreg env` to see which library is missing'
            )
        self.inputs = [i.name for i in self._session.get_inputs()]
        self._outputs = [o.name for o in self._session.get_outputs()]

    def __call__(self, values: Mapping[str, Tensor]) -> Arrays:
        """Computes the outputs."""
        feeds = {name: t.numpy() for name, t in values.items()}
        return dict(zip(self._outputs, self._session.run(None, feeds), strict=True))

    def placement(self) -> dict[str, list[str]]:
        """The operator types that each provider runs, by provider."""
        placed: dict[str, list[str]] = {}
        for part in self._session.get_provider_graph_assignment_info():
            placed.setdefault(part.ep_name, []).extend(node.op_type for node in part.get_nodes())
        return placed


def _text(data: str | bytes) -> str:
    return data.decode('utf-8') if isinstance(data, bytes) else data


@contextmanager
def _plain_tensors() -> Iterator[None]:
    """Restricts ``torch.export.load`` to reading tensors; it would unpickle arbitrary objects."""
    read: Any = torch.load

    def load_tensors(file: Any, **options: Any) -> Any:
        return read(file, **{**options, 'weights_only': True})

    with mock.patch.object(torch, 'load', load_tensors):
        yield


def import_onnxruntime() -> Any:
    """The onnxruntime module.

    Raises:
        MissingBackendError: it is not installed.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise MissingBackendError("onnxruntime is missing; install it with pip install 'lossreg[export]'") from error
    return onnxruntime


def load(data: bytes, suffix: str, device: str = 'cpu') -> Runtime:
    """The runtime for an artefact with this file name suffix (``pt``, ``pt2`` or ``onnx``)."""
    if suffix == 'pt':
        return TorchScript(data, device)
    return Pt2(data) if suffix == 'pt2' else OnnxRuntime(data, device)


def _named(names: tuple[str, ...] | list[str], tensors: tuple[Tensor, ...]) -> Arrays:
    return {name: np.asarray(t.detach().cpu()) for name, t in zip(names, tensors, strict=True)}
