"""Inputs, calls and differences from hosts that several losses share, because those who call them do."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from lossreg.spec import Call, Difference, Input, Role, always

# OpenMMLab's detectors

AVG_FACTOR = Input('avg_factor', Role.AVG_FACTOR, '', optional=True, when=lambda loss: loss.reduction == 'mean')
"""The input that OpenMMLab's detectors average by."""


def zero_avg_factor(host: str) -> Difference:
    """The difference that every loss averaged by ``avg_factor`` has from its host's."""
    return Difference(
        host,
        'avg_factor=0 gives 0; mmdet divides by 1.2e-7',
        'contract 2: nothing to average over gives exactly 0',
        'tests/test_contract.py',
    )


def no_shortcut(host: str) -> Difference:
    """The difference from mmdet's way out of a batch without targets or without a positive weight."""
    return Difference(
        host,
        "no weight above 0, or an empty batch: the formula as ever, element by element with reduction='none'; mmdet "
        'returns one scalar, the sum of pred * weight or 0',
        'the shape of the result, and what a negative weight means, do not depend on values',
        'tests/test_torch_regression.py',
    )


MMDET_CALLS = tuple(
    Call(
        name,
        (
            Input('pred', Role.LOGITS, shape, differentiable=True),
            Input('target', Role.LOGITS, shape),
            Input('weight', Role.WEIGHTS, shape, optional=True),
            AVG_FACTOR,
        ),
    )
    for name, shape in (('vectors', 'N D'), ('images', 'N C H W'))
)
"""The calls of mmdet's element-wise losses: predictions, targets and weights of one shape."""


def _box_call(name: str, weight_shape: str, optional: bool) -> Call:
    """A call with weights of one shape."""
    return Call(
        name,
        (
            Input('pred', Role.BOXES, 'N 4', differentiable=True),
            Input('target', Role.BOXES, 'N 4'),
            Input('weight', Role.WEIGHTS, weight_shape, optional=optional),
            AVG_FACTOR,
        ),
    )


BOX_CALLS = (_box_call('boxes', 'N', optional=True), _box_call('coordinate_weights', 'N 4', optional=False))
"""The calls of every loss with one number a pair of boxes."""


def scalar_without_weight(host: str) -> Difference:
    """The difference that mmdet's shortcut for weights of 0 makes."""
    return Difference(
        host,
        "all weights 0 with reduction='none' gives (N) zeros; mmdet gives one scalar 0",
        'the shape of the result does not depend on values, or no graph could hold it',
        'tests/test_contract.py',
    )


# torch.nn


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


# mmpose and mmyolo


def nan_without_weight(host: str, test: str) -> Difference:
    """The difference from hosts that multiply the finished loss by a target weight of 0."""
    return Difference(
        host,
        'NaN under a target weight of 0 contributes 0; the host returns NaN',
        'contract 3: an element that is switched off contributes nothing to value or gradient',
        test,
    )


# Classifiers and penalties

CLASSIFIER_INPUTS = (
    Input('features', Role.FEATURES, 'N D', differentiable=True),
    Input('label', Role.LABELS, 'N', classes='C'),
    Input('weight', Role.FEATURES, 'C D', optional=True, differentiable=True),
)
"""What losses over class vectors take: the module holds ``weight`` as a parameter, an artefact can take it as input."""


def classifier_sizes(loss: Any) -> Mapping[str, int]:
    """An instance's parameter fixes the number of classes and of features."""
    return {'C': loss.num_classes, 'D': loss.in_features}


PENALTY_CALLS = tuple(
    Call(name, (Input('input', Role.FEATURES, shape, differentiable=True),))
    for name, shape in (('matrix', 'N D'), ('vector', 'N'), ('kernel', 'O I H W'))
)
"""The calls of penalties: a layer's weights, a bias, and a convolution's weights."""
