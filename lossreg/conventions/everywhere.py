"""The calls of torch.nn's losses, and the differences that losses have from any host."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from lossreg.spec import Call, Difference, Input, Role, always


def no_broadcast(host: str, test: str) -> Difference:
    """The difference that losses have whose host broadcasts inputs of different shapes."""
    return Difference(
        host,
        'inputs of different shapes are an error; the host broadcasts them, some with a warning',
        'contract 5: a forgotten dimension would train on the wrong pairs',
        test,
    )


def torch_calls(
    role: Role = Role.LOGITS,
    target: Role = Role.LOGITS,
    names: tuple[str, str] = ('vectors', 'images'),
    when: Callable[[Any], bool] = always,
) -> tuple[Call, ...]:
    """The calls of torch's element-wise losses: inputs and targets of one shape, as vectors and as images.

    Args:
        role: of the input.
        target: of the target.
        names: of the two calls.
        when: which instances allow them.
    """
    return tuple(
        Call(
            name,
            (Input('input', role, shape, differentiable=True), Input('target', target, shape)),
            when=when,
        )
        for name, shape in zip(names, ('N C', 'N C H W'), strict=True)
    )


def nan_under_zero(host: str, what: str, test: str) -> Difference:
    """The difference that losses have whose host multiplies by a weight or mask of 0."""
    return Difference(
        host,
        f'NaN under a {what} of 0 contributes 0; {host.partition(".")[0]} returns NaN',
        'contract 3: an element that is switched off contributes nothing to value or gradient',
        test,
    )


def nan_without_weight(host: str, test: str) -> Difference:
    """The difference from hosts that multiply the finished loss by a target weight of 0."""
    return nan_under_zero(host, 'target weight', test)
