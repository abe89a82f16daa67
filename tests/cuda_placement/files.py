"""The files whose placement is examined: every loss and call, a second variant, and three training steps."""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any


def write(folder: Path) -> None:
    """Exports all of them, with gradient, into a folder."""
    from lossreg.registry import load_losses

    with ProcessPoolExecutor(2, get_context('spawn')) as pool:
        steps = pool.submit(write_steps, folder)
        list(pool.map(partial(write_loss, folder), load_losses()))
        steps.result()


def write_loss(folder: Path, name: str) -> None:
    """The files of one loss."""
    import torch

    from lossreg.exporters import build

    torch.set_num_threads(1)
    for stem, unit in units_of(name).items():
        (folder / f'{stem}.onnx').write_bytes(build(replace(unit, grad=True), ['onnx'])['onnx'])


def units_of(name: str) -> dict[str, Any]:
    """Units by file name: the default variant in each call with all optional inputs, and those of the default tests."""
    from test_losses import EXPORTED
    from units import DEFAULTS, label

    calls = {unit.call.name: unit for unit in DEFAULTS[name]}
    return {label(unit): unit for unit in (*calls.values(), *(unit for unit, _ in EXPORTED[name]))}


def write_steps(folder: Path) -> None:
    """Steps of a convolutional and an attention network, and of one distilled from a teacher's logits."""
    import torch
    from students import ConvStudent, TokenStudent

    import lossreg

    sgd = {'type': 'SGD', 'lr': 0.01, 'momentum': 0.9, 'weight_decay': 1e-3}
    adamw = {'type': 'AdamW', 'lr': 0.01, 'weight_decay': 0.05}
    labels, logits = torch.tensor([0, 4, 2, 1]), torch.randn(4, 5)
    steps = {
        'convolutions': (ConvStudent, 'TorchCrossEntropyLoss', sgd, labels),
        'attention': (TokenStudent, 'TorchCrossEntropyLoss', adamw, labels),
        'distilled': (ConvStudent, 'KLDivergence', adamw, logits),
    }
    for name, (student, loss, optimizer, target) in steps.items():
        torch.manual_seed(0)
        with TemporaryDirectory() as out:
            path = lossreg.export_train_step(
                student(),
                {'type': loss},
                optimizer,
                out,
                example_inputs=(torch.randn(4, 3, 21, 24),),
                example_targets=(target,),
                clip_grad=0.5,
            )
            (folder / f'step.{name}.onnx').write_bytes(path.read_bytes())
