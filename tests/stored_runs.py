"""Stores ONNX files with inputs and eager's outputs, and replays them with nothing but numpy and onnxruntime.

Usage: stored_runs.py write FOLDER; then, in another environment, stored_runs.py replay FOLDER.
"""

import sys
from pathlib import Path

import numpy as np


def write(folder: Path) -> None:
    from lossreg.exporters import build
    from lossreg.registry import load_losses
    from lossreg.request import variants_of
    from lossreg.runtimes import Eager
    from lossreg.samples import numeric_cases

    for name in load_losses():
        for unit in variants_of(name)[0].units():
            stem = f'{name}.{unit.call.name}.{len(unit.inputs)}'
            (folder / f'{stem}.onnx').write_bytes(build(unit, ['onnx'], grad=True)['onnx'])
            eager = Eager(unit, grad=True)
            for at, case in enumerate(c for c in numeric_cases(unit) if c.smooth):
                inputs = {f'in_{key}': value.numpy() for key, value in case.inputs.items()}
                outputs = {f'out_{key}': value for key, value in eager(case.inputs).items()}
                allowed = {'rtol': unit.spec.tolerance.rtol, 'atol': unit.spec.tolerance.atol}
                np.savez(folder / f'{stem}.{at}.npz', **inputs, **outputs, **allowed)


def replay(folder: Path) -> None:
    import onnxruntime

    runs = sorted(folder.glob('*.npz'))
    for run in runs:
        session = onnxruntime.InferenceSession(
            str(run.with_suffix('').with_suffix('.onnx')), providers=['CPUExecutionProvider']
        )
        stored = dict(np.load(run))
        names = [key.removeprefix('out_') for key in stored if key.startswith('out_')]
        allowed = {key: float(stored[key]) for key in ('rtol', 'atol')}
        feeds = {key.removeprefix('in_'): value for key, value in stored.items() if key.startswith('in_')}
        for name, value in zip(names, session.run(names, feeds), strict=True):
            np.testing.assert_allclose(value, stored[f'out_{name}'], err_msg=f'{run.name} {name}', **allowed)
    assert runs, f'nothing to replay in {folder}'
    print(f'{len(runs)} runs agree with eager in onnxruntime {onnxruntime.__version__}')


if __name__ == '__main__':
    {'write': write, 'replay': replay}[sys.argv[1]](Path(sys.argv[2]))
