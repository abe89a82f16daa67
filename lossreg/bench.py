"""Times loss and gradient on every backend, relative to eager in the same run."""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch

from lossreg.exporters import build
from lossreg.formats import BACKENDS, DEVICE_BACKENDS, SUFFIXES
from lossreg.request import variants_of
from lossreg.runtimes import Eager, load
from lossreg.samples import draw
from lossreg.unit import OTHER_SIZES


def bench_loss(name: str, scale: int, rounds: int) -> list[dict[str, Any]]:
    """Times the default variant of a loss, in its first call, with all optional inputs and one thread.

    Each round runs every backend once, in random order. The ratio is the median over rounds of a backend's process time
    divided by eager's.

    Args:
        name: the loss.
        scale: the factor by which dimensions are larger than in checks.
        rounds: the number of rounds.
    """
    unit = replace(list(variants_of(name)[0].units())[-1], grad=True)
    sizes = {dim: size * scale if unit.is_dynamic(dim) else size for dim, size in unit.sizes(OTHER_SIZES).items()}
    inputs = draw(unit, sizes=sizes)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        built = build(unit, SUFFIXES)
        contenders: dict[str, Callable[..., Any]] = {'eager': Eager(unit)}
        contenders |= {b: load(built[f], SUFFIXES[f]) for b in DEVICE_BACKENDS['cpu'] if (f := BACKENDS[b])}
        times = _rounds(contenders, inputs, rounds)
    finally:
        torch.set_num_threads(threads)
    shown = ' '.join(f'{dim}={size}' for dim, size in sizes.items())
    return [
        {
            'loss': name,
            'sizes': shown,
            'backend': backend,
            'ratio': statistics.median(t / e for t, e in zip(taken, times['eager'], strict=True)),
            'milliseconds': 1e3 * statistics.median(taken),
        }
        for backend, taken in times.items()
    ]


def _rounds(contenders: dict[str, Callable[..., Any]], inputs: Any, rounds: int) -> dict[str, list[float]]:
    times: dict[str, list[float]] = {name: [] for name in contenders}
    order = list(contenders)
    shuffle = random.Random(0).shuffle
    for turn in range(-3, rounds):  # three rounds to warm up
        shuffle(order)
        for name in order:
            start = time.process_time()
            contenders[name](inputs)
            if turn >= 0:
                times[name].append(time.process_time() - start)
    return times
