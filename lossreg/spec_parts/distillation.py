"""Calls of losses that compare a student with its teacher."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from lossreg.spec import Call, Input, Role, always


def distillation_calls(
    shapes: Mapping[str, str],
    role: Role = Role.LOGITS,
    names: tuple[str, str] = ('preds_S', 'preds_T'),
    more: tuple[Input, ...] = (),
    when: Callable[[Any], bool] = always,
    both: bool = False,
) -> tuple[Call, ...]:
    """The calls of losses of a student's and its teacher's output, of the same shape.

    Args:
        shapes: the shape of both outputs, by the name of the call.
        role: of both outputs.
        names: of the student's and the teacher's output.
        more: the inputs after them.
        when: which instances allow them.
        both: whether the teacher gets a gradient too.
    """
    return tuple(
        Call(
            name,
            (
                Input(names[0], role, shape, differentiable=True),
                Input(names[1], role, shape, differentiable=both),
                *more,
            ),
            when=when,
        )
        for name, shape in shapes.items()
    )


LOGITS_SHAPES = {'vectors': 'N C', 'images': 'N C H W'}
"""Shapes of a classifier's logits, and of a segmentation network's."""

FEATURE_SHAPES = {'vectors': 'N C', 'maps': 'N C H W'}
"""Shapes of pooled features, and of feature maps."""

FEATURE_CALLS = distillation_calls(FEATURE_SHAPES, Role.FEATURES, ('s_feature', 't_feature'))
"""The calls of mmrazor's element-wise losses of features."""


def outputs_call(name: str, shape: str, role: Role = Role.LOGITS, parameter: str = 'preds_T') -> Call:
    """The call of data-free losses: the teacher's output alone, whose gradient trains a generator."""
    return Call(name, (Input(parameter, role, shape, differentiable=True),))


def relational_calls() -> tuple[Call, ...]:
    """The calls of losses that compare relations within a batch: only the batch sizes must be equal."""
    return tuple(
        Call(
            name,
            (Input('preds_S', Role.FEATURES, student, differentiable=True), Input('preds_T', Role.FEATURES, teacher)),
        )
        for name, (student, teacher) in {'vectors': ('N C', 'N D'), 'maps': ('N C H W', 'N D I J')}.items()
    )
