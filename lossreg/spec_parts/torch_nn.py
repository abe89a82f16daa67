"""What torch.nn's losses are called with, and the sizes that their buffers fix."""

from collections.abc import Callable
from typing import Any

from lossreg.spec import Call, Input, Role, always


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
