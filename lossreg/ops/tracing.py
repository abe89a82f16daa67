"""What losses do only while they are traced, never in eager mode or in TorchScript."""

from collections.abc import Callable
from typing import Any

from torch import Tensor


def scan(
    step: Callable[..., list[Tensor]], start: Tensor, over: list[Tensor], constant: list[Tensor]
) -> tuple[Tensor, ...]:
    """Runs ``step`` for each slice of ``over`` along the first dimension; ONNX has an operator for it.

    The operator itself is called, not ``torch.scan``: that compiles what it is given, and what it gets from the
    compiler's cache, filled by another scan, cannot be exported.

    Args:
        step: takes what the step before carries on, a slice of each of ``over``, and ``constant``; returns what it
            carries on, and its results. None of these may be what it was given.
        start: what the first step takes.
        over: what is sliced.
        constant: what each step takes.

    Returns:
        What the last step carries on, and the results of all steps along a new first dimension.
    """
    from torch._higher_order_ops.scan import scan_op  # not public, and nothing public exports to ONNX Scan

    run: Any = scan_op
    return tuple(run(step, [start], over, constant))
