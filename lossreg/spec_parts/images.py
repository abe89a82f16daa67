"""Calls of mmagic's and mmocr's image losses, and differences from them."""

from __future__ import annotations

from lossreg.spec import Call, Difference, Input, Role
from lossreg.spec_parts.differences import nan_under_zero


def _image_call(name: str, shape: str, *weights: Input) -> Call:
    """A call with predicted and true images."""
    images = Input('pred', Role.LOGITS, shape, differentiable=True), Input('target', Role.LOGITS, shape)
    return Call(name, (*images, *weights))


IMAGE_CALLS = (
    _image_call('images', 'N C H W', Input('weight', Role.WEIGHTS, 'N C H W', optional=True, broadcasts=('C',))),
    _image_call('masks', 'N C H W', Input('weight', Role.WEIGHTS, 'N 1 H W')),
    _image_call('videos', 'N T C H W'),
)
"""The calls of mmagic's pixel losses: images, images with one weight per pixel (such as a mask), and videos."""


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
    """The differences of all of mmocr's losses of masked maps."""
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
    """The difference of those that compute binary cross-entropies."""
    return Difference(
        host,
        'a target outside [0, 1] is used as is, a probability outside gives NaN; mmocr raises AssertionError for both',
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
    """The difference in ``reduction`` of those that balance positives and negatives."""
    return Difference(
        host,
        "reduction='mean' and 'sum' are refused; mmocr then takes the mean or the sum of all losses, masked ones too, "
        'for the loss of each element',
        'contract 3: what is masked contributes nothing; and the loss would depend on the size of the image',
        'tests/openmmlab/test_mmocr.py',
    )


def any_of_equals(host: str) -> Difference:
    """The difference in ties of those that balance positives and negatives."""
    return Difference(
        host,
        'gradient where only some of equally hard negatives count: the first of them; mmocr takes any of them',
        'same inputs, same bits',
        'tests/openmmlab/test_mmocr.py',
    )


COMPOSITION_CALLS = (
    Call(
        'images',
        (
            Input('pred_alpha', Role.PROBABILITIES, 'N 1 H W', differentiable=True),
            Input('fg', Role.PROBABILITIES, 'N 3 H W'),
            Input('bg', Role.PROBABILITIES, 'N 3 H W'),
            Input('ori_merged', Role.PROBABILITIES, 'N 3 H W'),
            Input('weight', Role.WEIGHTS, 'N 1 H W', optional=True),
        ),
    ),
)
"""The call of mmagic's matting models, whose images and mattes lie in [0, 1]."""


BALANCED_VARIANTS = {
    'default': {},
    'textsnake': {'fallback_negative_num': 100, 'eps': 1e-5},
    'few': {'negative_ratio': 0.4, 'fallback_negative_num': 2},
}
