"""Distils a teacher into a student on scikit-learn's digits, in PyTorch and with only ONNX Runtime.

``python benchmarks/distill_digits.py --out digits`` starts both from the same parameters and prints their difference,
the accuracies (also of the student without its teacher) and the time of a step. It plots the curves to
``digits/curves.png``. Needs the extra ``bench``.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from rich.console import Console
from rich.table import Table
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor, nn

import lossreg
from lossreg.device import TrainStep

BATCH = 64
FEW = 150
"""The number of the student's labelled images; the teacher has seen the whole training set."""

OPTIMIZERS: dict[str, dict[str, Any]] = {
    'SGD': {'type': 'SGD', 'lr': 0.05, 'momentum': 0.9, 'weight_decay': 5e-4, 'nesterov': True},
    'AdamW': {'type': 'AdamW', 'lr': 1e-2, 'weight_decay': 0.01},
}
TAU = 4.0


def objective(with_teacher: bool) -> dict[str, Any]:
    """Cross-entropy with the labels and, if there is a teacher, the divergence from its softened probabilities."""
    hard = {'loss': {'type': 'CrossEntropyLoss'}, 'inputs': {'cls_score': 'student', 'label': 'label'}}
    soft = {
        'loss': {'type': 'KLDivergence', 'tau': TAU, 'reduction': 'batchmean'},
        'inputs': {'preds_S': 'student', 'preds_T': 'teacher'},
    }
    losses = {'hard': {**hard, 'weight': 0.1}, 'soft': {**soft, 'weight': 0.9}} if with_teacher else {'hard': hard}
    return {'type': 'CompositeLoss', 'losses': losses}


class Student(nn.Module):
    """A strided and a depthwise convolution with batch normalisation: 1,002 parameters.

    Its activation is smooth. The gradient of a ReLU jumps, and within 200 steps some unit comes so close to 0 that
    rounding decides on which side it is. From then on, any two runs diverge.
    """

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, 16, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(16), nn.SiLU(),
            nn.Conv2d(16, 16, 3, padding=1, groups=16, bias=False), nn.Conv2d(16, 24, 1, bias=False),
            nn.BatchNorm2d(24), nn.SiLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        )  # fmt: skip
        self.head = nn.Linear(24, 10)

    def forward(self, image: Tensor) -> Tensor:
        """Logits of a batch of images."""
        logits: Tensor = self.head(self.features(image))
        return logits


def teacher_network() -> nn.Module:
    """Two wide convolutions and a hidden layer."""
    return nn.Sequential(
        nn.Conv2d(1, 64, 3, padding=1), nn.BatchNorm2d(64), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(64, 128, 3, padding=1), nn.BatchNorm2d(128), nn.ReLU(), nn.Flatten(),
        nn.Linear(128 * 16, 128), nn.ReLU(), nn.Linear(128, 10),
    )  # fmt: skip


@dataclass(frozen=True)
class Digits:
    """Images and labels: the training set for the teacher, a few for the student, and the test set."""

    train: tuple[Tensor, Tensor]
    few: tuple[Tensor, Tensor]
    test: tuple[Tensor, Tensor]


def digits(seed: int) -> Digits:
    """1,797 images of 8 x 8, a third of them for the test."""
    images, labels = load_digits(return_X_y=True)
    images = images.reshape(-1, 1, 8, 8).astype(np.float32) / 8.0 - 1.0
    split = train_test_split(images, labels.astype(np.int64), test_size=1 / 3, random_state=seed, stratify=labels)
    train_x, test_x, train_y, test_y = (torch.from_numpy(part) for part in split)
    return Digits((train_x, train_y), (train_x[:FEW], train_y[:FEW]), (test_x, test_y))


def trained_teacher(data: Digits, epochs: int) -> nn.Module:
    """The teacher, trained on all of the training set."""
    teacher = teacher_network()
    optimizer = torch.optim.AdamW(teacher.parameters(), lr=2e-3)
    for _ in range(epochs):
        for rows in torch.randperm(len(data.train[0])).split(BATCH):
            optimizer.zero_grad()
            F.cross_entropy(teacher(data.train[0][rows]), data.train[1][rows]).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    return teacher.eval()


def accuracy(logits: Tensor, labels: Tensor) -> float:
    """The percentage of labels that have the largest logit."""
    return 100.0 * float((logits.argmax(1) == labels).float().mean())


Batches = list[tuple[Tensor, Tensor, Tensor]]


def batches(data: Digits, teacher: nn.Module, steps: int) -> Batches:
    """The images, labels and teacher's logits of every step."""
    images, labels = data.few
    with torch.no_grad():
        logits = teacher(images)
    found: Batches = []
    while len(found) < steps:
        for rows in torch.randperm(len(images)).split(BATCH):
            found.append((images[rows], labels[rows], logits[rows]))
    return found[:steps]


def train_in_torch(
    student: nn.Module, work: Batches, optimizer_cfg: dict[str, Any], with_teacher: bool
) -> tuple[nn.Module, list[float], float]:
    """The trained student, the loss of every step, and the median seconds per step."""
    model = deepcopy(student)
    options = {key: value for key, value in optimizer_cfg.items() if key != 'type'}
    optimizer = getattr(torch.optim, optimizer_cfg['type'])(model.parameters(), **options)
    loss_of = lossreg.build_loss(objective(with_teacher))
    losses, seconds = [], []
    for images, labels, logits in work:
        start = time.perf_counter()
        optimizer.zero_grad()
        given = {'student': model(images), 'label': labels, **({'teacher': logits} if with_teacher else {})}
        loss = loss_of(given)['loss']
        loss.backward()
        optimizer.step()
        seconds.append(time.perf_counter() - start)
        losses.append(loss.item())
    return model.eval(), losses, statistics.median(seconds)


def train_on_device(step: TrainStep, work: Batches) -> tuple[list[float], float]:
    """The loss of every step in ONNX Runtime, and the median seconds per step."""
    losses, seconds = [], []
    for batch in work:
        arrays = [tensor.numpy() for tensor in batch]
        start = time.perf_counter()
        losses.append(step(*arrays))
        seconds.append(time.perf_counter() - start)
    return losses, statistics.median(seconds)


def compare(out: Path, seed: int, steps: int, say: Callable[[str], None]) -> dict[str, Any]:
    """All measurements of this benchmark, including the curves."""
    torch.manual_seed(seed)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    say('training the teacher')
    data = digits(seed)
    teacher = trained_teacher(data, epochs=15)
    student = Student()
    found: dict[str, Any] = {
        'seed': seed,
        'few': FEW,
        'steps': steps,
        'teacher_accuracy': accuracy(teacher(data.test[0]).detach(), data.test[1]),
    }
    for name, optimizer in OPTIMIZERS.items():
        work = batches(data, teacher, steps)
        say(f'exporting the step with {name}')
        images, labels, logits = (tensor[:4] for tensor in work[0])
        path = lossreg.export_train_step(
            student, objective(True), optimizer, out / name, example_inputs=(images,),
            example_targets={'label': labels, 'teacher': logits},
        )  # fmt: skip
        say(f'training with {name}')
        step = TrainStep(path, threads=1)
        model, in_torch, torch_seconds = train_in_torch(student, work, optimizer, with_teacher=True)
        on_device, device_seconds = train_on_device(step, work)
        alone, _, _ = train_in_torch(student, work, optimizer, with_teacher=False)
        device_logits = torch.from_numpy(step.predict(data.test[0].numpy())['output'])
        apart = [abs(a - b) / abs(a) for a, b in zip(in_torch, on_device, strict=True)]
        found[name] = {
            'largest_relative_difference': max(apart),
            'torch_accuracy': accuracy(model(data.test[0]).detach(), data.test[1]),
            'device_accuracy': accuracy(device_logits, data.test[1]),
            'without_teacher_accuracy': accuracy(alone(data.test[0]).detach(), data.test[1]),
            'step_time_ratio': device_seconds / torch_seconds,
            'torch_losses': in_torch,
            'device_losses': on_device,
        }
    torch.set_num_threads(threads)
    return found


def draw(found: dict[str, Any], path: Path) -> None:
    """Plots both loss curves and their difference."""
    import matplotlib as mpl

    mpl.use('Agg')
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(2, 2, figsize=(10, 6), sharex='col', height_ratios=(3, 1))
    for column, name in enumerate(OPTIMIZERS):
        in_torch, on_device = (np.array(found[name][key]) for key in ('torch_losses', 'device_losses'))
        top, bottom = axes[0, column], axes[1, column]
        top.plot(in_torch, label='PyTorch', linewidth=3, alpha=0.4)
        top.plot(on_device, label='ONNX Runtime alone', linewidth=1)
        top.set_title(f'{name}: {found[name]["device_accuracy"]:.1f} % on the device')
        top.legend()
        bottom.semilogy(np.abs(in_torch - on_device) / np.abs(in_torch) + 1e-9, linewidth=1)
        bottom.set_xlabel('step')
        bottom.axhline(1e-4, color='grey', linestyle=':')
    axes[0, 0].set_ylabel('distillation loss')
    axes[1, 0].set_ylabel('relative difference')
    figure.tight_layout()
    figure.savefig(path, dpi=120)


def table(found: dict[str, Any]) -> Table:
    """The table of the main figures."""
    shown = Table(
        '', *OPTIMIZERS, title=f'{found["steps"]} steps on {FEW} digits; teacher {found["teacher_accuracy"]:.1f} %'
    )
    rows = {
        'largest relative difference of the loss': ('largest_relative_difference', '{:.1e}'),
        'accuracy, trained in PyTorch': ('torch_accuracy', '{:.1f} %'),
        'accuracy, trained with ONNX Runtime': ('device_accuracy', '{:.1f} %'),
        'accuracy without the teacher': ('without_teacher_accuracy', '{:.1f} %'),
        'time of a step, ONNX Runtime / PyTorch': ('step_time_ratio', '{:.2f}'),
    }
    for title, (key, form) in rows.items():
        shown.add_row(title, *(form.format(found[name][key]) for name in OPTIMIZERS))
    return shown


def main() -> int:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(description=(__doc__ or '').partition('\n')[0])
    parser.add_argument('--out', type=Path, default=Path('digits'), help='folder for steps, curves and figures')
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--steps', type=int, default=400, help='steps of training with each optimizer')
    parser.add_argument('--json', action='store_true', help='print JSON instead of a table')
    options = parser.parse_args()
    console = Console(stderr=True)
    with console.status('starting') as status:
        found = compare(options.out, options.seed, options.steps, status.update)
    draw(found, options.out / 'curves.png')
    (options.out / 'figures.json').write_text(json.dumps(found, indent=1) + '\n')
    if options.json:
        print(json.dumps(found))
    else:
        Console().print(table(found))
        print(f'curves: {options.out / "curves.png"}')
    return 0


if __name__ == '__main__':
    sys.exit(main())
