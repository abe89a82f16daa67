"""Stores ONNX files with inputs and expected outputs, and replays them with only numpy and onnxruntime.

Usage: stored_runs.py write FOLDER; then, in another environment, stored_runs.py replay FOLDER. ``write-fixed`` writes
files with all dimensions fixed, and only the cases that fit them.

Every loss (its default variant, each call, all optional inputs, with gradient) on every case that ``lossreg check``
draws: ordinary, extreme, of size 1, empty, ignored, zero-weight, NaN and infinite. Also training steps. Each runs twice
in one session, because a runtime may plan its memory in the first run.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

Arrays = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Run:
    """One run of a stored file: its inputs, and the expected outputs with their tolerances.

    An old runtime ``may_refuse`` a dimension of size 0 other than the batch, but must not return other numbers.
    """

    name: str
    inputs: Arrays
    outputs: Arrays
    rtol: float
    atol: Mapping[str, float]
    may_refuse: bool = False


@dataclass(frozen=True)
class Fault:
    """A fault of an onnxruntime that the file cannot avoid cheaply. All these runs must fail that way.

    Attributes:
        version: the version of onnxruntime.
        runs: a pattern for runs, ``<file>, <case>``.
        detail: a pattern for their failures.
    """

    version: str
    runs: str
    detail: str


FAULTS = (
    # the square root of infinity is NaN in float32; avoiding it costs a pass or two over memory
    Fault(
        '1.16.3',
        r'((Bone|Charbonnier|MPJPE|SpatialBorder)Loss\.\w+, -?inf in \w+'
        r'|SemiSupervisionLoss\.\w+, -?inf in (?!unlabeled_traj)\w+'
        r'|TripletMargin(WithDistance)?Loss\.triplets, -?inf in (positive|negative))',
        r'\w+ is nan, expected .*',
    ),
    # a sum over no channels leaves a dimension of size 0
    Fault(
        '1.16.3',
        r'TransferalPerceptualLoss\.attention, C=0',
        r'grad_soft_attention has shape \[8, 0, 9, 4\], expected \[8, 1, 9, 4\]',
    ),
)


REFUSE_SIZE_0 = ('1.16.3',)
"""Versions that may refuse a dimension of size 0 other than the batch: a sum over it raises."""


def store(folder: Path, stem: str, model: bytes, runs: list[Run]) -> None:
    (folder / f'{stem}.onnx').write_bytes(model)
    arrays = {
        f'{at} {side} {name}': value
        for at, run in enumerate(runs)
        for side in ('inputs', 'outputs')
        for name, value in getattr(run, side).items()
    }
    about = [{'name': run.name, 'rtol': run.rtol, 'atol': dict(run.atol), 'may_refuse': run.may_refuse} for run in runs]
    np.savez(folder / f'{stem}.npz', about=np.array(json.dumps(about)), **arrays)


def stored(file: Path) -> list[Run]:
    """The runs written by ``store``."""
    arrays = dict(np.load(file))
    about = json.loads(str(arrays.pop('about')))
    sides: list[dict[str, dict[str, np.ndarray]]] = [{'inputs': {}, 'outputs': {}} for _ in about]
    for key, value in arrays.items():
        at, side, name = key.split(' ', 2)
        sides[int(at)][side][name] = value
    return [Run(**which, **arrays) for which, arrays in zip(about, sides, strict=True)]


def write_loss(folder: Path, fixed: bool, name: str) -> None:
    from lossreg.exporters import build
    from lossreg.request import variants_of
    from lossreg.unit import OTHER_SIZES, with_fixed

    # without optional inputs, then with all of them
    units = {unit.call.name: unit for unit in variants_of(name)[0].units()}
    for unit in units.values():
        stem = f'{name}.{unit.call.name}'
        if fixed:
            dims = {dim for i in unit.taken for dim in i.dims if not dim.isdigit()}
            unit = with_fixed(unit, {dim: size for dim, size in unit.sizes(OTHER_SIZES).items() if dim in dims})
        store(folder, stem, build(replace(unit, grad=True), ['onnx'])['onnx'], list(runs_of(unit)))


def runs_of(unit) -> Iterator[Run]:
    """Every case with eager's outputs, or with zeros if nothing counts."""
    from lossreg.runtimes import Eager
    from lossreg.samples import Expect, edge_cases, numeric_cases

    eager, tolerance = Eager(replace(unit, grad=True)), unit.spec.tolerance
    for case in (*numeric_cases(unit), *edge_cases(unit)):
        try:
            outputs = eager(case.values)
        except ValueError:
            if case.expect is Expect.DEFINED:
                continue
            raise
        rtol, atol = tolerance.rtol, tolerance.atol
        if case.expect is Expect.VALUE:  # the gradient is undefined
            outputs = {name: outputs[name] for name in unit.call.losses}
        if case.expect is Expect.ZERO:
            kept = (*unit.call.losses, *(f'grad_{i.name}' for i in unit.differentiable))
            outputs, rtol, atol = {name: np.zeros_like(outputs[name]) for name in kept}, 0.0, 0.0
        largest = {n: np.abs(a[np.isfinite(a)]).max(initial=1.0) for n, a in outputs.items()}
        allowed = {n: atol * (1.0 if case.smooth else float(largest[n])) for n in outputs}
        inputs = {name: tensor.numpy() for name, tensor in case.values.items()}
        yield Run(case.name, inputs, outputs, rtol, allowed, case.expect is Expect.DEFINED)


def write_steps(folder: Path) -> None:
    """Writes training steps with PyTorch's outputs in float64, and the tolerances of their export."""
    import torch
    from students import ConvStudent, TokenStudent

    import lossreg
    from lossreg.exporters.step_verify import NOISE, RTOL, TINY, Reference
    from lossreg.exporters.train_step import LR, Options, Plan
    from lossreg.runtimes import OnnxRuntime

    optimizers = {'SGD': {'momentum': 0.9, 'weight_decay': 1e-3}, 'AdamW': {'weight_decay': 0.05}}
    for student_type, (rule, more) in zip((ConvStudent, TokenStudent), optimizers.items(), strict=True):
        torch.manual_seed(0)
        student, cfg = student_type(), {'type': rule, 'lr': 0.01, **more}
        batch, targets = (torch.randn(4, 3, 21, 24),), (torch.tensor([0, 4, 2, 1]),)
        loss, name = {'type': 'TorchCrossEntropyLoss'}, student_type.__name__
        with TemporaryDirectory() as out:
            path = lossreg.export_train_step(
                student, loss, cfg, out, example_inputs=batch, example_targets=targets, clip_grad=0.5
            )
            model = path.read_bytes()
        plan = Plan.of(student, loss, Options(cfg, '', {}, 0.5, 1), batch, targets, '').resized(7)
        state = {key: tensor.numpy() for key, tensor in plan.state().items()}
        given = {n: t.numpy() for n, t in {**plan.batch, **plan.targets, LR: torch.tensor(0.01)}.items()} | state
        inputs = {key: given[key] for key in OnnxRuntime(model).inputs}
        outputs, rounded = (Reference(plan, dtype).step(plan, True) for dtype in (torch.float64, torch.float32))
        atol = {
            key: RTOL * np.abs(want).max() + NOISE * np.abs(rounded[key] - want).max() + TINY
            for key, want in outputs.items()
        }
        names = {key: f'next_{key}' if key in state else key for key in outputs}
        step = Run(
            'ordinary', inputs, {names[k]: a for k, a in outputs.items()}, 0.0, {names[k]: e for k, e in atol.items()}
        )
        kept = {f'next_{key}': array for key, array in state.items() if f'next_{key}' in step.outputs}
        kept['ok'] = np.array(False)
        image = next(iter(plan.batch))
        nan = {**inputs, image: np.full_like(inputs[image], np.nan)}
        store(folder, f'step.{name}', model, [step, Run('NaN in the batch', nan, kept, 0.0, dict.fromkeys(kept, 0.0))])


def write(folder: Path, fixed: bool = False) -> None:
    from lossreg.formats import DEFAULT_OPSET, OLDEST_ONNXRUNTIME, OLDEST_ONNXRUNTIME_EMPTY_BATCH
    from lossreg.registry import load_losses

    promised = {'any': OLDEST_ONNXRUNTIME[DEFAULT_OPSET], 'empty': OLDEST_ONNXRUNTIME_EMPTY_BATCH[DEFAULT_OPSET]}
    (folder / 'promised.json').write_text(json.dumps(promised))
    with ProcessPoolExecutor(2, get_context('spawn')) as pool:
        steps = None if fixed else pool.submit(write_steps, folder)
        list(pool.map(partial(write_loss, folder, fixed), load_losses()))
        if steps is not None:
            steps.result()


def differences(file: Path, run_model: Callable[[bytes], Callable[[Arrays], Arrays]]) -> Iterator[tuple[Run, str]]:
    """Each run, and what is wrong with it; '' if nothing is.

    Args:
        file: the ``.npz`` file of the runs, beside the model.
        run_model: loads a model from bytes and returns a function from inputs to outputs, both by name.
    """
    try:
        session = run_model(file.with_suffix('.onnx').read_bytes())
    except Exception as error:
        yield from ((run, f'does not load: {error}') for run in stored(file))
        return
    for run in stored(file):
        try:
            found = [session(run.inputs) for _ in range(2)]
        except Exception as error:
            yield run, f'raises: {error}'
        else:
            yield run, difference(run, found[0]) or difference(run, found[1])


def difference(run: Run, found: Arrays) -> str:
    for name, want in run.outputs.items():
        got = found[name]
        if got.shape != want.shape:
            return f'{name} has shape {list(got.shape)}, expected {list(want.shape)}'
        close = np.isclose(got.astype(np.float64), want.astype(np.float64), run.rtol, run.atol[name], equal_nan=True)
        if not close.all():
            return f'{name} is {got[~close].flat[0]:.9g}, expected {want[~close].flat[0]:.9g}'
    return ''


def replay(folder: Path) -> None:
    import onnxruntime

    def session_of(model: bytes) -> Callable[[Arrays], Arrays]:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.log_severity_level = 1, 4
        session = onnxruntime.InferenceSession(model, options, providers=['CPUExecutionProvider'])
        names = [output.name for output in session.get_outputs()]
        return lambda inputs: dict(zip(names, session.run(names, dict(inputs)), strict=True))

    version = onnxruntime.__version__
    promised = json.loads((folder / 'promised.json').read_text())
    is_new = {what: numbers(version) >= numbers(oldest) for what, oldest in promised.items()}
    assert is_new['any'], f'nothing is promised of {version}'
    faults = [fault for fault in FAULTS if fault.version == version]
    wrong, empty, seen, count = [], [], set(), 0
    for file in sorted(folder.glob('*.npz')):
        for run, detail in differences(file, session_of):
            count += 1
            place = f'{file.stem}, {run.name}'
            known = [fault for fault in faults if re.fullmatch(fault.runs, place)]
            seen.update(known)
            if not all(re.fullmatch(fault.detail, detail) for fault in known):
                wrong.append(f'{place}: {detail or "right"}, but declared as {known[0].detail}')
            elif known or not detail or (run.may_refuse and detail.startswith('raises') and version in REFUSE_SIZE_0):
                continue
            elif run.name == 'empty' and not is_new['empty']:
                empty.append(place)
            else:
                wrong.append(f'{place}: {detail}')
    wrong += [f'no run is {fault.runs}' for fault in faults if fault not in seen]
    assert count, f'nothing to replay in {folder}'
    assert not wrong, '\n'.join(wrong)
    assert empty or is_new['empty'], f'empty batches are right in {version}; say so in lossreg/formats.py'
    print(f'{count} runs are right in onnxruntime {version}, but for {len(faults)} declared faults')


def numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split('.'))


if __name__ == '__main__':
    {'write': write, 'write-fixed': partial(write, fixed=True), 'replay': replay}[sys.argv[1]](Path(sys.argv[2]))
