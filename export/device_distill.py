"""Trains an exported step on a device without PyTorch: ``python device_distill.py step.onnx data.npz --out trained``.

``data.npz`` holds an array for each input of the step, by name, with the same number of samples. Needs numpy,
onnxruntime, safetensors, and the ``device.py`` that was exported with the step.
"""

from __future__ import annotations

import argparse
import importlib
import json
import math
import sys
import time
import zipfile
from pathlib import Path
from typing import Any

import numpy as np


def main(arguments: list[str] | None = None) -> int:
    """Runs the command; returns its exit code: 0 ok, 1 training diverged, 2 wrong arguments or files."""
    options = parser().parse_args(arguments)
    try:
        train(options)
    except FloatingPointError as error:
        print(f'device_distill: {error}; lower --lr, or fix the data', file=sys.stderr)
        return 1
    except (OSError, ValueError, ImportError, zipfile.BadZipFile) as error:
        print(f'device_distill: {error}', file=sys.stderr)
        return 2
    return 0


def parser() -> argparse.ArgumentParser:
    """The command's arguments."""
    found = argparse.ArgumentParser(prog='device_distill', description=__doc__.partition('\n')[0])
    found.add_argument('step', type=Path, help='the step.onnx that lossreg.export_train_step wrote')
    found.add_argument('data', type=Path, help='an .npz with an array for each input of the step')
    found.add_argument('--epochs', type=_positive, default=1, help='passes over the data (default: 1)')
    found.add_argument('--batch', type=_positive, default=64, help='samples a step at most (default: 64)')
    found.add_argument('--lr', type=float, help="learning rate (default: the exported one's)")
    found.add_argument('--cosine', action='store_true', help='let the learning rate fall to 0 along half a cosine')
    found.add_argument('--resume', type=Path, help='a state saved earlier')
    found.add_argument('--out', type=Path, default=Path('trained'), help='folder for state, student and log')
    found.add_argument('--seed', type=int, default=0, help='of the order of samples')
    found.add_argument('--device', choices=('cpu', 'cuda'), default='cpu')
    found.add_argument('--json', action='store_true', help='print the log as JSON at the end')
    return found


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f'must be 1 or more, got {value}')
    return value


def train(options: argparse.Namespace) -> None:
    """Trains, and writes ``state.safetensors``, ``student.onnx`` and ``log.json``."""
    step = _step(options.step, options.device)
    arrays = _arrays(options.data, step)
    if options.resume:
        step.load(options.resume)
    count = len(arrays[0])
    order = np.random.default_rng(options.seed)
    batches = math.ceil(count / options.batch)
    total = options.epochs * batches
    log: list[dict[str, float]] = []
    options.out.mkdir(parents=True, exist_ok=True)
    start = time.perf_counter()
    for epoch in range(options.epochs):
        # of almost equal size, because batch normalisation cannot train on a single left-over sample
        for chosen in np.array_split(order.permutation(count), batches):
            lr = options.lr if options.lr is not None else step.default_lr
            if options.cosine:
                lr *= 0.5 * (1.0 + math.cos(math.pi * len(log) / total))
            loss = step(*(array[chosen] for array in arrays), lr=lr)
            log.append({'epoch': epoch + 1, 'lr': lr, **step.results, 'loss': loss})
            _show(log, total, time.perf_counter() - start)
    if sys.stderr.isatty():
        print(file=sys.stderr)
    step.save(options.out / 'state.safetensors')
    step.export_inference(options.out / 'student.onnx')
    (options.out / 'log.json').write_text(json.dumps(log))
    if options.json:
        print(json.dumps({'schema': 1, 'rows': log}))
    else:
        seconds = time.perf_counter() - start
        print(f'{len(log)} steps in {seconds:.1f} s, loss {log[0]["loss"]:.4f} -> {log[-1]["loss"]:.4f}; {options.out}')


def _step(path: Path, device: str) -> Any:
    """The training step, loaded by the ``device.py`` beside it.

    Raises:
        FileNotFoundError: the step or its ``device.py`` does not exist.
    """
    for needed in (path, path.with_name('device.py')):
        if not needed.is_file():
            raise FileNotFoundError(
                f'there is no {needed}; lossreg.export_train_step writes step and device.py together'
            )
    sys.path.insert(0, str(path.parent))
    return importlib.import_module('device').TrainStep(path, device=device)


def _arrays(path: Path, step: Any) -> list[Any]:
    """The step's inputs, in order.

    Raises:
        ValueError: an input is missing, or the numbers of samples differ.
    """
    with np.load(path) as data:
        names = [entry['name'] for entry in step.inputs]
        missing = [name for name in names if name not in data]
        if missing:
            raise ValueError(f'{path} has no array {missing[0]!r}; the step takes {", ".join(names)}')
        arrays = [data[name] for name in names]
    for name, array in zip(names, arrays, strict=True):
        if not array.size:
            raise ValueError(f'{name} in {path} holds no samples')
        if len(array) != len(arrays[0]):
            raise ValueError(f'{names[0]} holds {len(arrays[0])} samples, but {name} holds {len(array)}')
    return arrays


def _show(log: list[dict[str, float]], total: int, seconds: float) -> None:
    """Shows a progress line if stderr is a terminal."""
    if sys.stderr.isatty():
        done = len(log)
        bar = ('#' * (30 * done // total)).ljust(30, '.')
        left = seconds / done * (total - done)
        print(f'\r[{bar}] {done}/{total} loss {log[-1]["loss"]:.4f} {left:.0f} s left ', end='', file=sys.stderr)


if __name__ == '__main__':
    sys.exit(main())
