"""Operations that losses use only while they are traced, never in eager mode or TorchScript."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


def scan(
    step: Callable[..., list[Tensor]], start: Tensor, over: list[Tensor], constant: list[Tensor]
) -> tuple[Tensor, ...]:
    """Runs ``step`` for each slice of ``over`` along the first dimension, as ONNX's Scan operator does.

    This calls the operator itself, not torch's function ``scan``: the function compiles its step, and a result from the
    compiler's cache, filled by another scan, cannot be exported. torch.compile knows only the function.

    Args:
        step: takes the state from the step before, a slice of each of ``over``, and ``constant``; returns the next
            state and its results. None of these may be one of its inputs.
        start: the state for the first step.
        over: the tensors to slice.
        constant: passed to each step.

    Returns:
        The final state, and the results of all steps along a new first dimension.
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

    if over[0].size(0) == 0:  # which torch refuses; one step gives the shapes of its results
        _, results = combine(start, [x.new_zeros(x.shape[1:]) for x in over])
        return (start.clone(), *(result.new_zeros((0, *result.shape)) for result in results))
    # an empty tensor counts as contiguous whatever its strides, but torch compares strides
    start = torch.empty_like(start, memory_format=torch.contiguous_format).copy_(start)
    last, results = compiled_scan(combine, start, over)
    return (last, *results)
