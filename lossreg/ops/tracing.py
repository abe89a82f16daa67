"""What losses do only while they are traced, never in eager mode or in TorchScript."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


def scan(
    step: Callable[..., list[Tensor]], start: Tensor, over: list[Tensor], constant: list[Tensor]
) -> tuple[Tensor, ...]:
    """Runs ``step`` for each slice of ``over`` along the first dimension; ONNX has an operator for it.

    The operator itself is called, not torch's function ``scan``: that compiles what it is given, and what it gets from
    the compiler's cache, filled by another scan, cannot be exported. torch.compile knows the function alone.

    Args:
        step: takes what the step before carries on, a slice of each of ``over``, and ``constant``; returns what it
            carries on, and its results. None of these may be what it was given.
        start: what the first step takes.
        over: what is sliced.
        constant: what each step takes.

    Returns:
        What the last step carries on, and the results of all steps along a new first dimension.
    """
    # not public; nothing public exports to ONNX Scan
    from torch._higher_order_ops.scan import scan as compiled_scan
    from torch._higher_order_ops.scan import scan_op

    if not torch.compiler.is_dynamo_compiling():
        run: Any = scan_op
        return tuple(run(step, [start], over, constant))

    def combine(carried: Tensor, slices: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        carried, *results = step(carried, *slices, *constant)
        return carried, results

    if over[0].size(0) == 0:  # which torch refuses; one step tells the shapes of its results
        _, results = combine(start, [x.new_zeros(x.shape[1:]) for x in over])
        return (start.clone(), *(result.new_zeros((0, *result.shape)) for result in results))
    # where nothing is in it, strides that are not those of new tensors pass for contiguous, which torch compares
    start = torch.empty_like(start, memory_format=torch.contiguous_format).copy_(start)
    last, results = compiled_scan(combine, start, over)
    return (last, *results)
