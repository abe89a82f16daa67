"""Inputs, calls and differences from hosts that several losses share, because those who call them do."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from lossreg.spec import EMPTY, Call, Difference, Input, Role, Tolerance, always

# OpenMMLab's detectors

AVG_FACTOR = Input('avg_factor', Role.AVG_FACTOR, '', optional=True, when=lambda loss: loss.reduction == 'mean')
"""The input that OpenMMLab's detectors average by."""


def zero_avg_factor(host: str) -> Difference:
    """The difference that every loss averaged by ``avg_factor`` has from its host's."""
    return Difference(
        host,
        f'avg_factor=0 gives 0; {host.partition(".")[0]} divides by 1.2e-7',
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


def gradient_at_certainty(host: str) -> Difference:
    """The difference that torch's bound on the derivative of a logarithm makes."""
    return Difference(
        host,
        'gradient of activated predictions within 1e-12 of 0 or 1: the derivative itself; mmdet (torch) limits it',
        'the derivative is what float64 arithmetic gives; at exactly 0 it is 0',
        'tests/openmmlab/test_mmdet.py',
    )


MMDET_CALLS = tuple(
    Call(
        name,
        (
            Input('pred', Role.LOGITS, shape, differentiable=True),
            Input('target', Role.LOGITS, shape),
            Input('weight', Role.WEIGHTS, shape, optional=True, broadcasts=tuple(shape.split()[1:3])),
            AVG_FACTOR,
        ),
    )
    for name, shape in (('vectors', 'N D'), ('images', 'N C H W'))
)
"""The calls of mmdet's element-wise losses: predictions, targets and weights of one shape."""


UNCERTAIN_CALLS = tuple(
    Call(
        name,
        (
            Input('pred', Role.LOGITS, shape, differentiable=True),
            Input('target', Role.LOGITS, shape),
            Input('sigma', Role.LOGITS, shape, differentiable=True, limit=20.0),
            Input('weight', Role.WEIGHTS, shape, optional=True, broadcasts=tuple(shape.split()[1:3])),
            AVG_FACTOR,
        ),
    )
    for name, shape in (('depths', 'N'), ('vectors', 'N D'))
)
"""The calls of mmdet3d's losses of predictions with an uncertainty each: of depths, and of vectors."""


def box_calls(
    role: Role, size: int, consistent: Callable[[Any, Mapping[str, Tensor]], Mapping[str, Tensor]] = lambda *_: {}
) -> tuple[Call, ...]:
    """The calls of a loss with one number a pair of boxes of ``size`` numbers: with weights of boxes and of numbers."""
    return tuple(
        Call(
            name,
            (
                Input('pred', role, f'N {size}', differentiable=True),
                Input('target', role, f'N {size}'),
                Input('weight', Role.WEIGHTS, weight_shape, optional=optional),
                AVG_FACTOR,
            ),
            consistent=consistent,
        )
        for name, weight_shape, optional in (('boxes', 'N', True), ('coordinate_weights', f'N {size}', False))
    )


BOX_CALLS = box_calls(Role.BOXES, 4)
"""The calls of every loss with one number a pair of boxes."""

ROTATED_CALLS = box_calls(Role.ROTATED_BOXES, 5)
"""The same for rotated boxes."""


def scalar_without_weight(host: str) -> Difference:
    """The difference that mmdet's shortcut for weights of 0 makes."""
    return Difference(
        host,
        "all weights 0 with reduction='none' gives (N) zeros; mmdet gives one scalar 0",
        'the shape of the result does not depend on values, or no graph could hold it',
        'tests/test_contract.py',
    )


CROSSING_EDGES = Tolerance(
    rtol=1e-4,
    atol=1e-5,
    why='a gradient holds lengths between crossings, which float32 knows divided by the sine of their angle; -log IoU '
    'divides them by the IoU',
)
"""The tolerance of losses of areas that polygons have in common."""


def coinciding_edges(host: str, test: str) -> tuple[Difference, ...]:
    """The differences from mmcv's areas of rotated boxes, which are those of a polygon of sorted vertices."""
    return (
        Difference(
            host,
            'gradient where corners or edges coincide: the mean of those on both sides; mmcv takes one of them',
            'any number between both is a subgradient, and the mean is 0 at the best box',
            test,
        ),
        Difference(
            host,
            'small boxes: exact; mmcv adds 1e-8 to products of edges, and so misses most of the area of boxes of 1e-4',
            'boxes of normalised coordinates are small',
            test,
        ),
        Difference(
            host,
            'two boxes without area have no overlap; mmcv gives NaN',
            'degenerate boxes are finite',
            test,
        ),
    )


# mmpretrain's classifiers

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


# mmaction's localizers


def nan_label(host: str) -> Difference:
    """The difference that comparing a label with a threshold makes."""
    return Difference(
        host,
        'a label that is NaN gives NaN; mmaction takes it for a negative',
        'contract 3: NaN in a counted element reaches the loss',
        'tests/openmmlab/test_mmaction.py',
    )


# mmpose's heads


def uses_target_weight(loss: Any) -> bool:
    """Whether an instance takes ``target_weight`` into account, and so needs it."""
    return bool(loss.use_target_weight)


def _keypoint_call(name: str, shape: str, weight_shape: str, when: Callable[[Any], bool] = always) -> Call:
    """A call with predicted and true coordinates, and weights where the instance uses them."""
    return Call(
        name,
        (
            Input('output', Role.LOGITS, shape, differentiable=True),
            Input('target', Role.LOGITS, shape),
            # one weight a keypoint is what most heads give
            Input('target_weight', Role.WEIGHTS, weight_shape, broadcasts=(shape[-1],), when=uses_target_weight),
        ),
        when=when,
    )


KEYPOINT_CALLS = (
    _keypoint_call('keypoints', 'N K D', 'N K 1'),
    _keypoint_call('coordinate_weights', 'N K D', 'N K D', when=uses_target_weight),
)
"""The calls of mmpose's losses of coordinates: RegressionHead's, and the one that mmpose documents."""

MAP_CALL = _keypoint_call('maps', 'N C H W', 'N C H W')
"""DEKRHead's call: a map of offsets for each coordinate, and weights of the same shape."""


def heatmap_call(
    name: str,
    *weights: Input,
    role: Role = Role.LOGITS,
    shape: str = 'N K H W',
    when: Callable[[Any], bool] = always,
    consistent: Callable[[Any, Mapping[str, Tensor]], Mapping[str, Tensor]] = lambda loss, drawn: EMPTY,
) -> Call:
    """A call of a loss of heatmaps.

    Args:
        name: the call's name.
        weights: the inputs after prediction and target.
        role: of the prediction.
        shape: of prediction and target.
        when: which instances allow it.
        consistent: what must be replaced among the inputs drawn.
    """
    heatmaps = Input('output', role, shape, differentiable=True), Input('target', Role.TARGETS, shape)
    return Call(name, (*heatmaps, *weights), when=when, consistent=consistent)


WEIGHT_OF_KEYPOINTS = Input('target_weights', Role.WEIGHTS, 'N K', when=uses_target_weight)
"""The weights that HeatmapHead gives with heatmaps, where the instance uses them."""

WEIGHT_OF_PIXELS = Input('target_weights', Role.WEIGHTS, 'N K H W', when=uses_target_weight)
"""The same of DEKRHead."""


def weight_of_keypoints(host: str, test: str) -> Difference:
    """The difference from those of mmpose's losses of coordinates that leave weights to broadcasting."""
    return Difference(
        host,
        'target_weight (N, K) holds a weight for each keypoint, as in the L1 losses; mmpose aligns it with (K, D)',
        'contract 5: where the sizes happen to fit, it would weigh the wrong elements',
        test,
    )


def quadrilaterals(numbers: Tensor) -> Tensor:
    """Eight numbers a row made the corners of a convex quadrilateral around 0, whose diagonals cross within it."""
    x, y, one, other, turn, cross, _, _ = numbers.unbind(1)
    angle, skew = turn, 0.5 * math.pi + 0.4 * torch.sin(cross)
    corners = []
    for quarter, length in enumerate((1.0 + one.abs(), 1.0 + other.abs(), 1.5 + other.abs(), 1.25 + one.abs())):
        way = angle + math.pi * (quarter // 2) + skew * (quarter % 2)
        corners += [0.5 * x + length * torch.cos(way), 0.5 * y + length * torch.sin(way)]
    return torch.stack(corners, 1)


def convex_calls(weight: Role) -> tuple[Call, ...]:
    """The call of mmrotate's losses of nine points and a quadrilateral, with weights of that role."""
    return (
        Call(
            'points',
            (
                Input('pred', Role.FEATURES, 'N 18', differentiable=True),
                Input('target', Role.FEATURES, 'N 8'),
                Input('weight', weight, 'N', optional=True),
                AVG_FACTOR,
            ),
            consistent=lambda _, drawn: {'target': quadrilaterals(drawn['target'])},
        ),
    )


def convex_differences(host: str) -> tuple[Difference, ...]:
    """The differences from mmrotate's losses of convex hulls, which have a gradient of their own."""
    test = 'tests/openmmlab/test_mmrotate.py'
    return (
        Difference(
            host,
            'gradient: the derivative of what is returned; mmrotate always gives that of the mean of 1 - GIoU, unless '
            'a number of it is above 1, and then 1e-6',
            'an objective that multiplies or sums the loss needs its derivative',
            test,
        ),
        Difference(
            host,
            'avg_factor counts; mmrotate ignores it',
            'it is documented, and the other losses of a detector are averaged by it',
            test,
        ),
        Difference(
            host,
            'without any area the loss is 1; mmcv gives NaN',
            'degenerate boxes are finite',
            test,
        ),
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


# Weights and masks


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


# mmagic's and mmocr's images


def _image_call(name: str, shape: str, *weights: Input) -> Call:
    """A call with predicted and true images."""
    images = Input('pred', Role.LOGITS, shape, differentiable=True), Input('target', Role.LOGITS, shape)
    return Call(name, (*images, *weights))


IMAGE_CALLS = (
    _image_call('images', 'N C H W', Input('weight', Role.WEIGHTS, 'N C H W', optional=True, broadcasts=('C',))),
    _image_call('masks', 'N C H W', Input('weight', Role.WEIGHTS, 'N 1 H W')),
    _image_call('videos', 'N T C H W'),
)
"""The calls of mmagic's pixel losses: images, also with one weight a pixel, as from a mask, and videos."""


def masked_calls(role: Role, target: Role, mask: Role) -> tuple[Call, ...]:
    """The call of mmocr's losses of maps: predictions, targets and an optional mask of one shape.

    Args:
        role: of the predictions.
        target: of the targets.
        mask: of the mask.
    """
    return (
        Call(
            'maps',
            (
                Input('pred', role, 'N H W', differentiable=True),
                Input('gt', target, 'N H W'),
                Input('mask', mask, 'N H W', optional=True),
            ),
        ),
    )


def masked_differences(host: str) -> tuple[Difference, ...]:
    """The differences that all of these have."""
    return (
        Difference(
            host,
            'an empty batch gives 0; mmocr raises AssertionError',
            'contract 2: nothing to average over gives exactly 0',
            'tests/openmmlab/test_mmocr.py',
        ),
        nan_under_zero(host, 'mask', 'tests/openmmlab/test_mmocr.py'),
    )


def no_assertion(host: str) -> Difference:
    """The difference of those that take binary cross-entropies."""
    return Difference(
        host,
        'a target outside [0, 1] counts as the formula has it, a probability there gives NaN; mmocr raises '
        'AssertionError for both',
        'no graph can raise for a value',
        'tests/openmmlab/test_mmocr.py',
    )


def bounded_gradient(host: str) -> Difference:
    """The difference of those that take logarithms of probabilities."""
    return Difference(
        host,
        'gradient of probabilities within 1e-12 of 0 or 1: the derivative itself, and 0 where the logarithm is cut '
        'off; torch limits it to 1e12',
        'the derivative is what float64 arithmetic gives',
        'tests/openmmlab/test_mmocr.py',
    )


def no_reduction(host: str) -> Difference:
    """A difference of those that balance positives and negatives."""
    return Difference(
        host,
        "reduction='mean' and 'sum' are refused; mmocr then takes the mean or the sum of all losses, masked ones too, "
        'for the loss of each element',
        'contract 3: what is masked contributes nothing; and every number would depend on the size of the image',
        'tests/openmmlab/test_mmocr.py',
    )


def any_of_equals(host: str) -> Difference:
    """Another one of these."""
    return Difference(
        host,
        'gradient of equally hard negatives, of which not all count: the first have it; in mmocr any of them',
        'same inputs, same bits',
        'tests/openmmlab/test_mmocr.py',
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

# Students and teachers


def distillation_calls(
    shapes: Mapping[str, str],
    role: Role = Role.LOGITS,
    names: tuple[str, str] = ('preds_S', 'preds_T'),
    more: tuple[Input, ...] = (),
    when: Callable[[Any], bool] = always,
    both: bool = False,
) -> tuple[Call, ...]:
    """The calls of a student's output beside its teacher's, of one shape.

    Args:
        shapes: that shape, by the name of the call.
        role: of both outputs.
        names: of the student's and the teacher's output.
        more: what follows them.
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
    """The call of data-free distillation's losses of a teacher's output alone, whose gradient trains a generator."""
    return Call(name, (Input(parameter, role, shape, differentiable=True),))
