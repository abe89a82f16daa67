"""Calls of mmpretrain's and mmaction's heads, of losses that hold a classifier's weights, and of penalties."""

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
        ('multi_label', Input('target', Role.TARGETS, 'N C', limit=1.0)),
        ('labels', Input('target', Role.LABELS, 'N', classes='C')),
    )
)
"""The calls of multi-label losses; the one of mmpretrain's multi-label heads comes first."""


def weights_of_samples(host: str) -> Difference:
    """How mmpretrain's element-wise losses differ for weights (N) with inputs of more than two dimensions."""
    return Difference(
        host,
        'weights (N) are one for each sample, whatever its dimensions; mmpretrain aligns them with the last but one',
        'that is what it documents, and what it does for two dimensions',
        'tests/openmmlab/test_mmpretrain.py',
    )


def float_targets(host: str) -> Difference:
    """How mmpretrain's multi-label losses differ in interpreting targets by their shape alone."""
    return Difference(
        host,
        'floats (N, 1) are the targets of one class; mmpretrain takes them as class indices',
        'a target 0.0 would then mean that the class is present',
        'tests/openmmlab/test_mmpretrain.py',
    )


def nan_label(host: str) -> Difference:
    """The difference from hosts that compare a label with a threshold."""
    return Difference(
        host,
        'a label that is NaN gives NaN; mmaction counts it as a negative',
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
"""Inputs of losses with class vectors: ``weight`` is a parameter of the module, and can be an input of an artefact."""


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
