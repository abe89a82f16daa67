"""Times contenders against each other in one process, and counts what deterministic means can count.

Only ratios within one run mean anything: every contender runs in every round, in another order, and the figure is the
median over rounds of the ratio of process times. The allocator keeps its memory (:func:`keep_memory`), because
returning it to the system after every call can cost more than the arithmetic.
"""

from __future__ import annotations

import math
import os
import platform
import random
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

Step = Callable[[], Any]

ALLOCATOR = {
    'MALLOC_MMAP_THRESHOLD_': '4294967296',
    'MALLOC_TRIM_THRESHOLD_': '4294967296',
    'MALLOC_TOP_PAD_': '67108864',
}
"""What makes glibc keep freed memory for the next allocation."""


def keep_memory() -> None:
    """Starts the program anew with an allocator that keeps freed memory, unless it runs so already."""
    if not ALLOCATOR.items() <= os.environ.items():
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], {**os.environ, **ALLOCATOR})


def environment(threads: int) -> dict[str, str]:
    """The columns that say where a figure was measured."""
    return {
        'processor': _processor(),
        'threads': str(threads),
        'torch': torch.__version__,
        'python': platform.python_version(),
    }


def _processor() -> str:
    info = Path('/proc/cpuinfo')
    if info.is_file():
        for line in info.read_text().splitlines():
            if line.startswith('model name'):
                return line.partition(':')[2].strip()
    return platform.processor()


def forward_and_backward(losses: Callable[[], Iterable[Tensor]], leaves: list[Tensor]) -> Step:
    """A step that computes losses and the gradient of their sum."""

    def step() -> None:
        torch.autograd.grad([loss.sum() for loss in losses()], leaves, allow_unused=True)

    return step


def seconds(contenders: Mapping[str, Step], budget: float, least: int = 7, most: int = 101) -> dict[str, list[float]]:
    """Process time of each contender in each round.

    Args:
        contenders: what to run, by name.
        budget: seconds after which no further round begins.
        least: rounds to run whatever the budget.
        most: rounds to run at most.
    """
    times: dict[str, list[float]] = {name: [] for name in contenders}
    order = list(contenders)
    shuffle = random.Random(0).shuffle
    for name in order * 2:  # to warm up
        contenders[name]()
    start = time.process_time()
    for turn in range(most):
        if turn >= least and time.process_time() - start > budget:
            break
        shuffle(order)
        for name in order:
            before = time.process_time()
            contenders[name]()
            times[name].append(time.process_time() - before)
    return times


def ratio(times: Mapping[str, list[float]], other: str, ours: str) -> float:
    """The other's time over ours: above 1, ours is faster."""
    return statistics.median(b / a for a, b in zip(times[ours], times[other], strict=True))


class _Counter(TorchDispatchMode):
    """Counts operators that compute: on a GPU each is at least one kernel."""

    def __init__(self) -> None:
        super().__init__()
        self.operators = self.looks = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten._local_scalar_dense.default:
            self.looks += 1
        elif not func.is_view and func not in _FREE:
            self.operators += 1
        return func(*args, **(kwargs or {}))


_FREE = (torch.ops.aten.detach.default, torch.ops.aten._unsafe_view.default, torch.ops.aten.empty.memory_format)


def operators(step: Step) -> tuple[int, int]:
    """How many operators a step dispatches that are no views, and how often it looks at a value."""
    with _Counter() as counter:
        step()
    return counter.operators, counter.looks


def geometric_mean(values: Iterable[float], weights: Iterable[float] | None = None) -> float:
    """The geometric mean, weighted or not; NaN of nothing."""
    logs = [math.log(value) for value in values]
    return math.exp(statistics.fmean(logs, list(weights) if weights else None)) if logs else math.nan
