"""What mmpretrain's and mmaction's heads call losses with, losses that hold a classifier's weights, and penalties."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lossreg.spec import Call, Difference, Input, Role, Tolerance
from lossreg.spec_parts.detectors import AVG_FACTOR

MULTI_LABEL_CALLS = tuple(
    Call(
        name,
        (
            Input('pred', Role.LOGITS, 'N C', differentiable=True),
            target,
            Input('weight', Role.WEIGHTS, 'N', optional=True),
            AVG_FACTOR,
        ),
    )
    for name, target in (
        ('multi_label', Input('target', Role.TARGETS, 'N C')),
        ('labels', Input('target', Role.LABELS, 'N', classes='C')),
    )
)
"""The calls of losses of several labels; what mmpretrain's heads for these give comes first."""


def weights_of_samples(host: str) -> Difference:
    """The difference that mmpretrain's element-wise losses make of weights (N) beside more than two dimensions."""
    return Difference(
        host,
        'weights (N) are one for each sample, whatever its dimensions; mmpretrain takes them for the last but one',
        'that is what its documents say of them, and what it does where there are two dimensions',
        'tests/openmmlab/test_mmpretrain.py',
    )


def float_targets(host: str) -> Difference:
    """The difference that mmpretrain's losses of several labels make of targets by their shape alone."""
    return Difference(
        host,
        'floats (N, 1) are the targets of one class; mmpretrain takes them for class indices',
        'a target 0.0 would mean the class is there',
        'tests/openmmlab/test_mmpretrain.py',
    )


def nan_label(host: str) -> Difference:
    """The difference that comparing a label with a threshold makes."""
    return Difference(
        host,
        'a label that is NaN gives NaN; mmaction takes it for a negative',
        'contract 3: NaN in a counted element reaches the loss',
        'tests/openmmlab/test_mmaction.py',
    )


ANGULAR_TOLERANCE = Tolerance(atol=1e-5, why='a gradient is a difference of terms of up to s = 64 times the margin')

SCALED_TOLERANCE = Tolerance(2e-5, 1e-5, 'the rounding of logits of up to s = 64 shifts every probability by 1e-5')

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


def class_weight_count(loss: Any) -> Mapping[str, int]:
    """Class weights fix the number of classes."""
    weights = loss.class_weight
    return {} if weights is None else {'C': weights.numel()}
