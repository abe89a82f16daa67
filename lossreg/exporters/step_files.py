"""Writes a training step: its graphs, the initial state, and what a device needs to run them, each verified first."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_unflatten

from lossreg.artefact import publish, read_manifest, sha256
from lossreg.errors import CheckError, ConfigError, DeclinedError, LossregError, MissingBackendError
from lossreg.exporters.onnx import to_onnx
from lossreg.exporters.signature import Port, Signature
from lossreg.exporters.step_verify import verify_step
from lossreg.exporters.student_ops import student_decompositions
from lossreg.exporters.trace import trace_module
from lossreg.exporters.train_step import KIND, EvalGraph, Options, Plan, StepGraph
from lossreg.formats import DEFAULT_OPSET, OLDEST_ONNXRUNTIME
from lossreg.request import Request
from lossreg.runtimes import OnnxRuntime, import_onnxruntime
from lossreg.versions import versions

Progress = Callable[[str], None]


def export_train_step(
    student: nn.Module,
    loss_cfg: Mapping[str, Any] | str,
    optimizer_cfg: Mapping[str, Any],
    path: str | Path,
    *,
    example_inputs: Sequence[Tensor],
    example_targets: Sequence[Tensor] | Mapping[str, Tensor] = (),
    trainable: str = '',
    paramwise: Mapping[str, Mapping[str, float]] | None = None,
    clip_grad: float | None = None,
    accumulate: int = 1,
    call: str = '',
    opset: int = DEFAULT_OPSET,
    progress: Progress = lambda what: None,
) -> Path:
    """Exports the whole training step of a student as ONNX, for a device without PyTorch.

    Written into the folder of ``path``, whose name the files take, so that a folder may hold several steps:
    ``step.onnx``, ``step.safetensors`` with the initial parameters and state, ``step.eval.onnx`` and
    ``step.predict.onnx`` with the same parameters as inputs, and with ``accumulate`` ``step.apply.onnx``, the
    optimizer's half. ``device.py``, which runs them, refuses a file of another step or a damaged one. A
    ``manifest.json`` lists them.

    Args:
        student: its ``forward`` takes tensors with the batch first and returns a tensor, several, or a dict. Modules
            in training mode are trained so: batch normalisation keeps its running statistics as state.
        loss_cfg: a loss, or a CompositeLoss. Its differentiated inputs take the student's outputs, by name from a dict
            and else in order; the others are the targets. Parameters of the loss are trained too.
        optimizer_cfg: as in OpenMMLab, ``dict(type='AdamW', lr=1e-3, weight_decay=0.01)``: SGD, Adam or AdamW. The
            learning rate is an input of every step; this one is the default.
        path: the step's file, or a folder for ``step.onnx``.
        example_inputs: a batch of the student's inputs, at least one sample.
        example_targets: the loss's targets for it, in order or by name; by name, optional inputs may be among them.
        trainable: a pattern searched in parameters' names (``r'^head\\.'``); the others are frozen.
        paramwise: factors of parameters whose names hold a pattern, ``{'bias': dict(lr_mult=2., decay_mult=0.)}``.
            The first pattern found counts.
        clip_grad: largest norm of all gradients together.
        accumulate: the optimizer steps once in so many batches, on the mean of their gradients.
        call: which of the loss's calls; its first by default, which the manifest names. For KLDiscretLoss that is
            ``tensors``, the mean over the batch; ``pairs`` is mmpose's.
        opset: ONNX opset.
        progress: told what is being done.

    Returns:
        The path of the step.

    Raises:
        ConfigError: what is given does not fit together.
        DeclinedError: the student has an operator that cannot be exported; named, with its module.
        MissingBackendError: a package is missing.
        CheckError: the graph does not give PyTorch's numbers. Nothing is written then.
    """
    safetensors = _safetensors()
    from lossreg.device import FILES_KEY, ROLES, state_metadata

    target = Path(path) / 'step.onnx' if Path(path).suffix != '.onnx' else Path(path)
    if target.stem.rpartition('.')[2] in ROLES:
        raise ConfigError(f'{target.name} is the name of a file beside a step; give the step another name')
    read_manifest(target.parent)  # one that cannot be read is found before anything is written
    options = Options(optimizer_cfg, trainable, paramwise or {}, clip_grad, accumulate)
    plan = Plan.of(student, loss_cfg, options, example_inputs, example_targets, call)
    others = [c.name for c in Request.of(loss_cfg).calls() if c.name != plan.unit.call.name]
    if others and not call:
        progress(
            f'calling {plan.unit.name} by its call {plan.unit.call.name}; call= chooses another: {", ".join(others)}'
        )
    _refuse_random_numbers(plan)
    plan = plan.resized(_traced_size(plan))
    graphs: dict[str, StepGraph | EvalGraph] = {'': StepGraph(plan, 'step')}
    if accumulate > 1:
        graphs = {'': StepGraph(plan, 'gradient'), 'apply': StepGraph(plan, 'apply')}
    graphs |= {'eval': EvalGraph(plan, with_loss=True), 'predict': EvalGraph(plan, with_loss=False)}
    built: dict[str, bytes] = {}
    for role in sorted(graphs, reverse=True):  # the step's own is last, because it holds the hashes of the others
        progress(f'exporting {_name(target, role)}')
        more = {} if role else {FILES_KEY: {name: sha256(data) for name, data in built.items()}}
        built[role] = _exported(graphs[role], opset, more)
    progress('comparing with PyTorch')
    measured = verify_step(plan, {role: OnnxRuntime(data) for role, data in built.items()})
    files = {_name(target, role): data for role, data in built.items()}
    entries: dict[str, dict[str, Any]] = {}
    for role, graph in graphs.items():
        entry = {**graph.signature().metadata, 'format': 'onnx', 'opset': opset, 'measured': {'max_rel': measured}}
        entries[_name(target, role)] = {**entry, 'oldest_onnxruntime': OLDEST_ONNXRUNTIME.get(opset)}
    state = {name: np.asarray(tensor.numpy(), order='C') for name, tensor in plan.state().items()}
    data = safetensors.save(state, metadata=state_metadata(state, sha256(built[''])))
    files[f'{target.stem}.safetensors'] = data
    entries[f'{target.stem}.safetensors'] = {'kind': KIND, 'loss': plan.unit.name, 'format': 'safetensors'}
    for name, entry in entries.items():
        entry |= {'sha256': sha256(files[name]), 'bytes': len(files[name]), 'versions': versions()}
    files['device.py'] = (Path(__file__).parents[1] / 'device.py').read_bytes()
    publish(target.parent, files, entries)
    return target


def _name(target: Path, role: str) -> str:
    """What a graph of a step is called: the step's own has no role."""
    return f'{target.stem}.{role}.onnx' if role else target.name


def _safetensors() -> Any:
    try:
        import safetensors.numpy
    except ImportError as error:
        raise MissingBackendError("safetensors is missing; install it with pip install 'lossreg[export]'") from error
    import_onnxruntime()
    return safetensors.numpy


def _traced_size(plan: Plan) -> int:
    """A batch size that is no other dimension's size: tracing takes equal sizes for one."""
    taken = {size for t in (*plan.batch.values(), *plan.targets.values(), *plan.state().values()) for size in t.shape}
    return next(size for size in range(5, 1000) if size not in taken)


def _exported(graph: StepGraph | EvalGraph, opset: int, more: Mapping[str, Any]) -> bytes:
    """The bytes of a graph.

    Args:
        graph: what is exported.
        opset: ONNX opset.
        more: what its metadata says besides.

    Raises:
        DeclinedError: it has an operator that cannot be exported.
    """
    signature = graph.signature()
    signature = replace(signature, metadata={**signature.metadata, **more})
    try:
        with _plain_attention():
            program = trace_module(graph, tuple(graph.examples().values()), signature, student_decompositions())
        return to_onnx(program, signature, opset)
    except CheckError as error:  # an invalid file
        reason = _culprit(graph.plan, opset)
        if not reason:
            raise
        raise DeclinedError(reason) from error
    except LossregError:
        raise
    except Exception as error:  # tracing and exporting raise whatever they meet
        raise DeclinedError(_why_not(graph, error, opset)) from error


@contextmanager
def _plain_attention() -> Iterator[None]:
    """Lets attention be matrix products and a softmax: the fused kernels have no gradient in ONNX."""
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)


def _refuse_random_numbers(plan: Plan) -> None:
    """Raises ConfigError where the student draws random numbers."""
    with _plain_attention():
        used = operators_of(plan)
    for operator, use in used.items():
        if torch.Tag.nondeterministic_seeded in operator.tags:
            raise ConfigError(
                f'{operator}, which {use.module} uses, draws random numbers; a graph holds none: '
                'call eval() on it, or set its probability to 0'
            )


def _why_not(graph: StepGraph | EvalGraph, error: BaseException, opset: int) -> str:
    """What in the student cannot be exported, in one line."""
    causes = [error]
    while causes[-1].__cause__ is not None:
        causes.append(causes[-1].__cause__)
    text = '\n'.join(map(str, causes))
    for operator, use in operators_of(graph.plan).items():
        root = str(operator).removeprefix('aten.').partition('.')[0]
        if root == '_local_scalar_dense' and 'data-dependent' in text:
            return f'{use.module} takes a number out of a tensor (float(), if), which a graph cannot; keep it a tensor'
        if f'aten.{root}' in text or f'aten::{root}' in text:
            return _refusal(operator, use)
    first = next((line.strip() for line in str(causes[-1]).splitlines() if line.strip()), '')
    reason = f'{type(causes[-1]).__name__}: {first}'
    module = _module_in(graph.plan, error)
    if module:
        return f'{module} cannot be traced: {reason}'
    return _culprit(graph.plan, opset) or f'the student cannot be traced: {reason}'


def _refusal(operator: Any, use: Use) -> str:
    return f'{operator}, which {use.module} uses, cannot be exported with its gradient; write it with other operators'


def _module_in(plan: Plan, error: BaseException) -> str:
    """The innermost module of the student that an error came through; empty where it came through none."""
    names = {id(module): _named(name, module) for name, module in plan.objective.student.named_modules() if name}
    found = ''
    frames = error.__traceback__
    while frames is not None:
        found = names.get(id(frames.tb_frame.f_locals.get('self')), found)
        frames = frames.tb_next
    return found


def _culprit(plan: Plan, opset: int) -> str:
    """The first operator of the student that cannot be exported even alone, as a message; empty where each can."""
    for operator, use in operators_of(plan).items():
        alone = _Alone(operator, use)
        tensors = alone.examples
        ports = tuple(Port(f'x{at}', tuple(map(str, t.shape))) for at, t in enumerate(tensors))
        try:
            signature = Signature('alone', ports, tuple(f'y{at}' for at in range(len(alone(*tensors)))), {})
            if signature.outputs:
                to_onnx(trace_module(alone, tensors, signature, student_decompositions()), signature, opset)
        except Exception:  # as above
            return _refusal(operator, use)
    return ''


class _Alone(nn.Module):
    """One operator as it was called, and the gradient of what it returns."""

    def __init__(self, operator: Any, use: Use) -> None:
        super().__init__()
        self.operator = operator
        self.values, self.tree = tree_flatten((use.arguments, use.options))

    @property
    def examples(self) -> tuple[Tensor, ...]:
        """The tensors it was called with."""
        return tuple(value.detach() for value in self.values if isinstance(value, Tensor))

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        """Computes the outputs, those of floating point, and the gradient of their sum."""
        left = iter(tensors)
        given = [next(left) if isinstance(value, Tensor) else value for value in self.values]
        leaves = [t.detach().requires_grad_() for t in tensors if t.is_floating_point()]
        floating = iter(leaves)
        given = [next(floating) if isinstance(v, Tensor) and v.is_floating_point() else v for v in given]
        arguments, options = tree_unflatten(given, self.tree)
        with torch.enable_grad():
            returned = [
                t for t in tree_flatten(self.operator(*arguments, **options))[0]
                if isinstance(t, Tensor) and t.is_floating_point()
            ]  # fmt: skip
            connected = [t.sum() for t in returned if t.requires_grad]
            found = torch.autograd.grad(connected, leaves, allow_unused=True) if connected else ()
        return (*(t.detach() for t in returned), *(g for g in found if g is not None))


@dataclass(frozen=True)
class Use:
    """Where a student uses an operator.

    Attributes:
        module: the name and class of the module.
        arguments: what the operator is called with there.
        options: the same by name.
    """

    module: str
    arguments: tuple[Any, ...]
    options: Mapping[str, Any]


def _named(name: str, module: nn.Module) -> str:
    return f'{name} ({type(module).__name__})'


def operators_of(plan: Plan) -> dict[Any, Use]:
    """The operators that the student's modules use, the longest names first, each with its first use."""
    found: dict[Any, Use] = {}
    inside: list[str] = ['the student']

    class Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call]
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            found.setdefault(func, Use(inside[-1], args, kwargs or {}))
            return func(*args, **(kwargs or {}))

    student = deepcopy(plan.objective.student)
    for name, module in student.named_modules():
        if name:
            module.register_forward_pre_hook(lambda m, a, n=name: inside.append(_named(n, m)))
            module.register_forward_hook(lambda m, a, o: inside.pop() and None)
    with Recorder():  # type: ignore[no-untyped-call]
        student(*plan.batch_values)
    return dict(sorted(found.items(), key=lambda item: -len(str(item[0]))))
