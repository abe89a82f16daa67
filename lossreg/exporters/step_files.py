"""Writes a training step: its verified graphs, the initial state, and what a device needs to run them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor, nn

from lossreg.artefact import STEP_KIND, publish, read_manifest, sha256
from lossreg.errors import ConfigError, MissingBackendError
from lossreg.exporters.step_verify import verify_step
from lossreg.exporters.train_step import EvalGraph, Options, Plan, StepGraph
from lossreg.formats import DEFAULT_OPSET, OLDEST_ONNXRUNTIME
from lossreg.request import Request
from lossreg.runtimes import OnnxRuntime, import_onnxruntime
from lossreg.versions import require_export_layer, versions

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

    The files are named after ``path``, so a folder may hold several steps: ``step.onnx``; ``step.safetensors`` with
    the initial parameters and state; ``step.eval.onnx`` and ``step.predict.onnx``, which take the same parameters as
    inputs; and with ``accumulate`` above 1 ``step.apply.onnx``, the optimizer's half. Beside them stand ``device.py``,
    which runs them and refuses damaged files and those of another step, and a ``manifest.json`` that lists them.

    Args:
        student: its ``forward`` takes tensors with the batch first and returns a tensor, several, or a dict. Modules
            in training mode are trained in it: batch normalisation keeps its running statistics as state.
        loss_cfg: a loss, or a CompositeLoss. Its differentiable inputs are the student's outputs, matched by name if
            they are a dict and in order otherwise; its other inputs are the targets. Parameters of the loss are trained
            too.
        optimizer_cfg: as in OpenMMLab, ``dict(type='AdamW', lr=1e-3, weight_decay=0.01)``: SGD, Adam or AdamW. The
            learning rate is an input of every step; this one is its default.
        path: the file of the step, or a folder for ``step.onnx``.
        example_inputs: a batch of the student's inputs, with at least one sample.
        example_targets: the loss's targets for that batch, in order or by name. By name, they may include optional
            inputs.
        trainable: a regular expression; parameters in whose names it is not found (``r'^head\\.'``) are frozen.
        paramwise: factors by regular expression, for parameters in whose names it is found:
            ``{'bias': dict(lr_mult=2., decay_mult=0.)}``. The first match counts.
        clip_grad: the largest norm of all gradients together.
        accumulate: the number of batches per optimizer step, which uses the mean of their gradients.
        call: which of the loss's calls; its first by default, which the manifest names. For KLDiscretLoss that is
            ``tensors``, the mean over the batch; ``pairs`` is mmpose's.
        opset: ONNX opset.
        progress: called with a description of each stage.

    Returns:
        The path of the step.

    Raises:
        ConfigError: the arguments do not fit together.
        DeclinedError: the student has an operator that cannot be exported; the message names it and its module.
        MissingBackendError: a package is missing, or torch is too old.
        CheckError: the graph does not give PyTorch's numbers. Nothing is written then.
    """
    require_export_layer('exporting a training step')  # an older torch cannot even import what follows
    safetensors = _safetensors()
    from lossreg.device import FILES_KEY, ROLES, state_metadata
    from lossreg.exporters.step_graphs import exported, refuse_random_numbers

    target = Path(path) / 'step.onnx' if Path(path).suffix != '.onnx' else Path(path)
    if target.stem.rpartition('.')[2] in ROLES:
        raise ConfigError(f'{target.name} is the name of a file beside a step; give the step another name')
    read_manifest(target.parent)  # raises if it is unreadable, before anything is written
    options = Options(optimizer_cfg, trainable, paramwise or {}, clip_grad, accumulate)
    plan = Plan.of(student, loss_cfg, options, example_inputs, example_targets, call)
    others = [c.name for c in Request.of(loss_cfg).calls() if c.name != plan.unit.call.name]
    if others and not call:
        progress(
            f'using the call {plan.unit.call.name} of {plan.unit.name}; choose another with call=: {", ".join(others)}'
        )
    refuse_random_numbers(plan)
    plan = plan.resized(_traced_size(plan))
    graphs: dict[str, StepGraph | EvalGraph] = {'': StepGraph(plan, 'step')}
    if accumulate > 1:
        graphs = {'': StepGraph(plan, 'gradient'), 'apply': StepGraph(plan, 'apply')}
    graphs |= {'eval': EvalGraph(plan, with_loss=True), 'predict': EvalGraph(plan, with_loss=False)}
    built: dict[str, bytes] = {}
    for role in sorted(graphs, reverse=True):  # the step itself is last, because it holds the hashes of the others
        progress(f'exporting {_name(target, role)}')
        more = {} if role else {FILES_KEY: {name: sha256(data) for name, data in built.items()}}
        built[role] = exported(graphs[role], opset, more)
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
    entries[f'{target.stem}.safetensors'] = {'kind': STEP_KIND, 'loss': plan.unit.name, 'format': 'safetensors'}
    for name, entry in entries.items():
        entry |= {'sha256': sha256(files[name]), 'bytes': len(files[name]), 'versions': versions()}
    files['device.py'] = (Path(__file__).parents[1] / 'device.py').read_bytes()
    publish(target.parent, files, entries)
    return target


def _name(target: Path, role: str) -> str:
    """The file name of a step's graph; the step itself has no role."""
    return f'{target.stem}.{role}.onnx' if role else target.name


def _safetensors() -> Any:
    try:
        import safetensors.numpy
    except ImportError as error:
        raise MissingBackendError("safetensors is missing; install it with pip install 'lossreg[export]'") from error
    import_onnxruntime()
    return safetensors.numpy


def _traced_size(plan: Plan) -> int:
    """A batch size that differs from every other dimension: tracing would take equal sizes for the same symbol."""
    taken = {size for t in (*plan.batch.values(), *plan.targets.values(), *plan.state().values()) for size in t.shape}
    return next(size for size in range(5, 1000) if size not in taken)
