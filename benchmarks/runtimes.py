"""Runs the stored files of all losses in a runtime and reports which are right, silently wrong or failing.

Usage::

    .venv/bin/python tests/stored_runs.py write FOLDER          # or write-fixed
    OTHER/bin/python benchmarks/runtimes.py RUNTIME FOLDER      # in an environment with numpy and the runtime

Each file runs in its own process, because a runtime may crash. Right means within ten times the tolerance of the loss.
It writes ``RUNTIME.json`` into the folder and prints a summary.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / 'tests'))
from stored_runs import Arrays, difference, stored

Session = Callable[[Arrays], Arrays]
LOOSER = 10.0
TIMEOUT = 300


def onnxruntime_session(file: Path) -> Session:
    """The CPU provider of the installed version."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 4
    session = onnxruntime.InferenceSession(str(file), options, providers=['CPUExecutionProvider'])
    names = [output.name for output in session.get_outputs()]
    return lambda inputs: dict(zip(names, session.run(names, dict(inputs)), strict=True))


def openvino_session(file: Path) -> Session:
    """The CPU plugin in float32; by default it uses a lower precision."""
    import openvino

    settings = {'INFERENCE_PRECISION_HINT': 'f32', 'INFERENCE_NUM_THREADS': 1}
    model = openvino.Core().compile_model(str(file), 'CPU', settings)

    def run(inputs: Arrays) -> Arrays:
        found = zip(model.outputs, model(dict(inputs)).values(), strict=True)
        return {name: np.array(array) for output, array in found for name in output.names}

    return run


def mnn_session(file: Path) -> Session:
    """A model converted by MNN itself, which has no int64."""
    import _tools  # `MNN.tools` would run pip
    import MNN
    import onnx

    proto = onnx.load(str(file)).graph
    taken, given = [i.name for i in proto.input], [o.name for o in proto.output]
    converted = str(Path(tempfile.mkdtemp()) / 'model.mnn')
    arguments = ['-f', 'ONNX', '--modelFile', str(file), '--MNNModel', converted, '--bizCode', 'lossreg']
    _tools.mnnconvert(['mnnconvert', *arguments])
    if not os.path.exists(converted):
        raise RuntimeError('does not convert')
    module = MNN.nn.load_module_from_file(converted, taken, given)

    def run(inputs: Arrays) -> Arrays:
        expr = MNN.expr
        tensors = []
        for name in taken:
            array = inputs[name]
            dtype = expr.int if array.dtype == np.int64 else expr.float
            flat = np.ascontiguousarray(array, np.int32 if dtype == expr.int else np.float32)
            tensors.append(expr.const(flat, list(array.shape), expr.NCHW, dtype))
        return {name: np.array(found.read()) for name, found in zip(given, module.forward(tensors), strict=True)}

    return run


def reference_session(file: Path) -> Session:
    """The reference evaluator of the onnx package."""
    from onnx.reference import ReferenceEvaluator

    evaluator = ReferenceEvaluator(str(file))
    return lambda inputs: dict(zip(evaluator.output_names, evaluator.run(None, dict(inputs)), strict=True))


SESSIONS = {
    'onnxruntime': onnxruntime_session,
    'openvino': openvino_session,
    'mnn': mnn_session,
    'onnx-reference': reference_session,
}


def run_file(runtime: str, file: Path) -> dict[str, str]:
    """What is wrong with each run; '' if nothing is."""
    runs = stored(file)
    try:
        session = SESSIONS[runtime](file.with_suffix('.onnx'))
    except Exception as error:
        return {run.name: f'fails to load: {_line(error)}' for run in runs}
    found = {}
    for run in runs:
        allowed = replace(
            run,
            rtol=LOOSER * max(run.rtol, 1e-6),
            atol={name: LOOSER * max(error, 1e-6) for name, error in run.atol.items()},
        )
        try:
            found[run.name] = difference(
                allowed, {n: _shaped(a, run.outputs.get(n)) for n, a in session(run.inputs).items()}
            )
        except Exception as error:
            found[run.name] = f'fails: {_line(error)}'
    return found


def _shaped(array: np.ndarray, like: np.ndarray | None) -> np.ndarray:
    """An output reshaped to the expected shape, because some runtimes have no scalars."""
    return array.reshape(like.shape) if like is not None and array.size == like.size == 1 else array


def _line(error: Exception) -> str:
    return ' '.join(str(error).split())[:300]


def kind_of(case: str) -> str:
    """The column of the table that a case belongs to."""
    if case.startswith(('ordinary', 'single')):
        return 'ordinary'
    if case.startswith(('all sizes 1', 'extreme')):
        return 'extreme'
    if case == 'empty' or case.endswith('=0'):
        return 'empty'
    return 'NaN and infinite' if re.match('NaN|-?inf', case) else 'switched off'


def verdict_of(detail: str) -> str:
    """Whether a file is right, wrong or failing."""
    if not detail:
        return 'right'
    return 'fails' if detail.startswith('fails') else 'wrong'


def main(runtime: str, folder: Path) -> None:
    """Runs all files in a folder."""
    results: dict[str, dict[str, str]] = {}
    for file in sorted(folder.glob('*.npz')):
        command = [sys.executable, __file__, runtime, str(file)]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT)
            results[file.stem] = json.loads(done.stdout.splitlines()[-1])
        except (subprocess.TimeoutExpired, json.JSONDecodeError, IndexError) as error:
            why = 'takes too long' if isinstance(error, subprocess.TimeoutExpired) else f'dies ({done.returncode})'
            results[file.stem] = {run.name: f'fails: {why}' for run in stored(file)}
    (folder / f'{runtime}.json').write_text(json.dumps(results, indent=1))
    summary(results)


def summary(results: dict[str, dict[str, str]]) -> None:
    """For each kind of case, the number of files that are right in all cases, wrong in one, or failing in one."""
    for kind in ('ordinary', 'extreme', 'switched off', 'NaN and infinite', 'empty'):
        counts: Counter[str] = Counter()
        for cases in results.values():
            verdicts = {verdict_of(detail) for case, detail in cases.items() if kind_of(case) == kind}
            if verdicts:
                counts['fails' if 'fails' in verdicts else 'wrong' if 'wrong' in verdicts else 'right'] += 1
        print(f'{kind}: {counts["right"]} right, {counts["wrong"]} wrong, {counts["fails"]} fail')


if __name__ == '__main__':
    name, place = sys.argv[1], Path(sys.argv[2])
    if place.is_dir():
        main(name, place)
    else:
        print(json.dumps(run_file(name, place)))
