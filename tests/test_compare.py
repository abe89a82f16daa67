"""The arithmetic of the checks: what counts as equal, how much results may differ, and how rows report it."""

import math
import xml.etree.ElementTree as ElementTree
from dataclasses import replace

import numpy as np
import pytest
import torch

from lossreg import report
from lossreg.checks import backends, eager
from lossreg.checks.oracle import finite_differences
from lossreg.checks.rows import Row, RowMaker, Status
from lossreg.compare import Agreement, compare
from lossreg.request import variants_of
from lossreg.samples import Case, Expect
from lossreg.spec import Tolerance

INF, NAN = math.inf, math.nan
ALLOWED = Tolerance(rtol=2.0**-10, atol=2.0**-12)
"""Powers of two, so that the arithmetic below is exact."""


def agreement(got, want, tolerance=ALLOWED, scaled=False):
    return compare({'loss': np.array(got)}, {'loss': np.array(want)}, tolerance, scaled)


@pytest.mark.parametrize('value', [0.0, 1.5, -3.0])
def test_what_is_allowed_is_exact(value):
    """Errors up to atol + rtol |expected| pass, in both directions, and not one bit more; the share is 1 there."""
    allowed = 2.0**-12 + 2.0**-10 * abs(value)
    for sign in (1.0, -1.0):
        at_the_end = agreement(value + sign * allowed, value)
        assert at_the_end
        assert at_the_end.share == 1.0
        further = agreement(value + sign * allowed * (1.0 + 2.0**-30), value)
        assert not further
        assert further.share == pytest.approx(1.0 + 2.0**-30, abs=2.0**-33)
        assert further.share > 1.0
        half = agreement(value + sign * allowed / 2, value)
        assert half
        assert half.share == 0.5


@pytest.mark.parametrize('wider', [10.0, 1000.0])
def test_a_wider_tolerance_would_be_found(wider):
    """Errors between the tolerance and ten times the tolerance fail, and the detail names number and output."""
    for number in (0.0, 1.0, 1e6):
        found = agreement(number + wider / 2 * (ALLOWED.atol + ALLOWED.rtol * number), number)
        assert not found
        assert found.share == pytest.approx(wider / 2)
        assert f'{found.share:.3g} times the error allowed' in found.detail


def test_the_share_is_that_of_the_worst_element_of_all_outputs():
    """The largest error need not be the worst: a small number may have a small error but a large share."""
    want = {'loss': np.array(4.0), 'grad_x': np.array([1024.0, 0.0])}
    got = {'loss': np.array(4.0 + 2.0**-12), 'grad_x': np.array([1024.0 + 0.25, 2.0**-13])}
    found = compare(got, want, ALLOWED)
    assert found.share == 0.5
    assert found.max_abs == 0.25
    found = compare({**got, 'loss': np.array(5.0)}, want, ALLOWED)
    assert not found
    assert found.detail.startswith('loss is 5, expected 4')
    assert found.share == pytest.approx(1.0 / (2.0**-12 + 2.0**-8))


def test_without_tolerance_only_equal_numbers_agree():
    exact = Tolerance(0.0, 0.0)
    assert agreement([0.0, 3.0], [0.0, 3.0], exact)
    assert agreement([0.0, 3.0], [0.0, 3.0], exact).share == 0.0
    for got in ([5e-324, 3.0], [0.0, 3.0000000000000004]):
        found = agreement(got, [0.0, 3.0], exact)
        assert not found
        assert found.share == INF


@pytest.mark.parametrize(
    ('got', 'want'),
    [(NAN, 1.0), (1.0, NAN), (INF, 1.0), (1.0, INF), (INF, -INF), (-INF, INF), (NAN, INF), (INF, NAN), (-INF, NAN)],
)
@pytest.mark.parametrize('tolerance', [ALLOWED, Tolerance(INF, INF), Tolerance(0.0, 0.0)])
def test_what_is_not_finite_has_no_tolerance(got, want, tolerance):
    for neighbours in ([], [0.0, 2.0]):
        found = agreement([*neighbours, got], [*neighbours, want], tolerance)
        assert not found
        assert found.share == INF
    assert agreement([want], [want], tolerance)


def test_shapes_and_names_are_compared():
    for got in ([1.0], [[1.0, 1.0]], []):
        assert not agreement(got, 1.0)
        assert agreement(got, 1.0).share == INF
    assert not compare({}, {'loss': np.ones(())}, ALLOWED)
    assert not compare({'loss': np.ones(())}, {}, ALLOWED), 'nothing was compared'
    assert agreement([], [])


@pytest.mark.parametrize('got', [np.int64, np.float64])
@pytest.mark.parametrize('want', [np.int64, np.float64])
def test_counts_are_equal_or_wrong(got, want):
    """No tolerance applies once one side is an integer."""
    wide = Tolerance(1.0, 100.0)
    assert agreement(got(7), want(7), wide)
    is_count = np.int64 in (got, want)
    assert bool(agreement(got(8), want(7), wide)) is not is_count
    assert (agreement(got(8), want(7), wide).share == INF) is is_count


def test_errors_are_measured_against_the_largest_number():
    found = agreement([1000.0, 1.0 + 2.0**-12], [1000.0, 1.0])
    assert (found.max_abs, found.max_rel) == (2.0**-12, 2.0**-12 / 1000.0)
    # of nothing but 0, against atol
    assert agreement([2.0**-13, 0.0], [0.0, 0.0]).max_rel == 0.5


def test_of_several_agreements_the_worst_remains_and_the_first_fault_is_said():
    good, bad, worse = (
        Agreement(3.0, 0.1, share=0.5),
        Agreement(1.0, 0.2, 'bad', 4.0),
        Agreement(2.0, 0.3, 'worse', 2.0),
    )
    for first, second in ((good, bad), (bad, good)):
        assert first.joined(second, cases=7) == Agreement(3.0, 0.2, 'bad', 4.0, 7)
    assert bad.joined(worse, cases=2) == Agreement(2.0, 0.3, 'bad', 4.0, 2)
    assert worse.joined(bad, cases=2).detail == 'worse'


def test_scaled_tolerance_grows_with_the_largest_number_expected():
    want = [1024.0, 0.0]
    assert not agreement([1024.0, 2.0**-3], want)
    assert agreement([1024.0, 2.0**-3], want, scaled=True).share == 0.5
    assert not agreement([1024.0, 2.0**-1], want, scaled=True)
    # the denominator is at least atol
    assert agreement([2.0**-12], [0.0], scaled=True).share == 1.0
    assert not agreement([2.0**-11], [0.0], scaled=True)


# The checks that use it


@pytest.fixture(scope='module')
def unit():
    request = variants_of('CrossEntropyLoss')[0]
    return next(request.units())


def changed(unit, change, **options):
    """The unit of a loss that is changed after it is computed: ``change(loss, cls_score)``."""

    class Changed(type(unit.loss)):
        def forward(self, cls_score, label, **given):
            return change(super().forward(cls_score, label, **given), cls_score)

    Changed.__module__ = type(unit.loss).__module__
    return replace(unit, loss=Changed(**options), config={**unit.config, **options})


def failures(unit, check):
    """The dtypes in which an eager check fails."""
    rows = [row for row in eager.eager_rows(unit, 'cpu') if row.check == check]
    assert rows
    assert all((row.share > 1.0) == (row.status is Status.FAIL) for row in rows)
    return {row.dtype for row in rows if row.status is Status.FAIL}


BOUNDS = {torch.float32: Tolerance(1e-5, 1e-6), torch.float64: Tolerance(1e-7, 1e-9)}
"""What eager is allowed where a spec says nothing else."""


@pytest.mark.parametrize('dtype', BOUNDS, ids=str)
def test_eager_is_as_exact_as_it_says(unit, dtype):
    """Three times the error allowed is found, a third of it is not: of a value near 2, and of one near 0."""

    def off(factor, offset):
        return lambda loss, x: loss * factor + offset if x.dtype is dtype else loss

    for times, found in ((3.0, {str(dtype).removeprefix('torch.')}), (1 / 3, set())):
        relative = changed(unit, off(1.0 + times * BOUNDS[dtype].rtol, 0.0))
        assert failures(relative, 'ordinary') == found
        absolute = changed(unit, off(1.0, times * BOUNDS[dtype].atol), loss_weight=1e-6)
        assert failures(absolute, 'ordinary') == found


def test_finite_differences_are_as_exact_as_they_say(unit):
    def off(factor):
        return lambda loss, x: loss.detach() + factor * (loss - loss.detach())

    for times, found in ((5.0, {'float64'}), (0.2, set())):
        assert failures(changed(unit, off(1.0 + times * 1e-5), loss_weight=100.0), 'finite differences') == found
        # gradients up to 1e-6, so that atol decides
        assert failures(changed(unit, off(1.0 + times * 0.1), loss_weight=3e-6), 'finite differences') == found


@pytest.mark.parametrize('x', [0.0, 1.0, -30.0, 1e4])
def test_central_differences_are_exact_at_every_size(unit, x):
    """Of a cube, beside a factor that is held: no gradient passes through it."""

    def cube(call, arrays, options):
        x = arrays['cls_score']
        return {'loss': x**3 + x * arrays.get('held_factor', x), 'held_factor': x}

    found = finite_differences(cube, unit, {'cls_score': torch.tensor([x])}, 'cls_score')
    np.testing.assert_allclose(found, [3 * x**2 + x], rtol=1e-9, atol=1e-9)


def test_only_extreme_inputs_are_held_to_their_largest_number(unit):
    """An ignored sample's loss of 3e-6 beside thousands."""

    def off(loss, x):
        return torch.where(loss == 0, 3e-6, loss)

    planted = changed(unit, off, reduction='none', loss_weight=1000.0)
    assert 'float32' in failures(planted, 'ordinary')
    assert failures(planted, 'extreme 1') == set()


def fixed(outputs):
    """A runtime that always returns, or raises, the same."""

    def run(values=None):
        if isinstance(outputs, Exception):
            raise outputs
        return {name: np.array(value) for name, value in outputs.items()}

    return run


def case_of(expect, **options):
    return Case('x', {'cls_score': torch.zeros(2), 'label': torch.zeros(1, dtype=torch.int64)}, expect, **options)


GOOD = {'loss': 1.0, 'grad_cls_score': [0.5, -0.5]}
NO_LOSS, NO_GRADIENT = {**GOOD, 'loss': NAN}, {**GOOD, 'grad_cls_score': [0.5, NAN]}
ZERO = {'loss': 0.0, 'grad_cls_score': [0.0, 0.0]}

VALUES = {
    'the number': (Expect.NUMBERS, GOOD, GOOD, True),
    'another number': (Expect.NUMBERS, {**GOOD, 'loss': 1.1}, GOOD, False),
    'NaN': (Expect.NUMBERS, NO_LOSS, GOOD, False),
    'NaN in the gradient': (Expect.NUMBERS, NO_GRADIENT, GOOD, False),
    'NaN, as expected': (Expect.NUMBERS, NO_LOSS, NO_LOSS, False),
    'infinity in the gradient': (Expect.NUMBERS, {**GOOD, 'grad_cls_score': [INF, 0.0]}, GOOD, False),
    'NaN for NaN': (Expect.VALUE, NO_LOSS, NO_LOSS, True),
    'a number for NaN': (Expect.VALUE, GOOD, NO_LOSS, False),
    'NaN for a number': (Expect.VALUE, NO_LOSS, GOOD, False),
    'any gradient of a value': (Expect.VALUE, NO_GRADIENT, GOOD, True),
    'zero': (Expect.ZERO, ZERO, ZERO, True),
    'a number for zero': (Expect.ZERO, {**ZERO, 'loss': 1e-30}, ZERO, False),
    'a gradient of zero': (Expect.ZERO, {**ZERO, 'grad_cls_score': [0.0, 1e-30]}, ZERO, False),
}


@pytest.mark.parametrize(('expect', 'found', 'expected', 'agrees'), VALUES.values(), ids=VALUES)
def test_what_each_expectation_takes(unit, expect, found, expected, agrees):
    """In eager, whose gradient the oracle does not know, and in artefacts, which are compared with eager."""
    case = case_of(expect)
    loss = {'loss': np.array(expected['loss'])}
    assert bool(eager._values(unit, case, fixed(found), lambda: loss, ALLOWED)) is agrees
    of_artefact = backends._agree(unit, case, fixed(found), fixed(expected))
    # NaN where eager has it is as good as a number: what eager returns is judged in its own row
    assert bool(of_artefact) is (agrees or found is expected)


def test_an_artefact_has_eagers_gradient(unit):
    other = {**GOOD, 'grad_cls_score': [0.5, -0.6]}
    for expect, agrees in ((Expect.NUMBERS, False), (Expect.VALUE, True)):
        assert bool(backends._agree(unit, case_of(expect), fixed(other), fixed(GOOD))) is agrees


@pytest.mark.parametrize('name', ['loss', 'grad_cls_score'])
def test_artefacts_are_as_exact_as_the_spec_says(unit, name):
    """Three times the error allowed is found, a third of it is not: of a value of 2, and of 0."""
    for value, allowed in ((2.0, 1e-6 + 2e-5), (0.0, 1e-6)):
        expected = {'loss': 1.0, 'grad_cls_score': 1.0, name: value}
        for times, agrees in ((3.0, False), (1 / 3, True)):
            found = {**expected, name: value + times * allowed}
            case = case_of(Expect.NUMBERS, smooth=True)
            assert bool(backends._agree(unit, case, fixed(found), fixed(expected))) is agrees


@pytest.mark.parametrize('smooth', [True, False])
def test_artefacts_too_are_held_to_their_largest_number_on_extreme_inputs_alone(unit, smooth):
    expected = {'loss': [1e4, 0.0], 'grad_cls_score': [0.0, 0.0]}
    found = {**expected, 'loss': [1e4, 1e-3]}
    case = case_of(Expect.NUMBERS, smooth=smooth)
    assert bool(backends._agree(unit, case, fixed(found), fixed(expected))) is not smooth
    assert bool(eager._values(unit, case, fixed(found), fixed(expected), Tolerance())) is not smooth


DEFINED = {
    'the number': (GOOD, GOOD, True),
    'another': ({**GOOD, 'loss': 2.0}, GOOD, False),
    'NaN': (NO_LOSS, GOOD, False),
    'NaN in the gradient': (NO_GRADIENT, GOOD, False),
    'NaN, as in NumPy': (NO_LOSS, NO_LOSS, False),
    'a number, NaN in NumPy': (GOOD, NO_LOSS, True),
    'a number, an error in NumPy': (GOOD, ValueError('zero-size array'), True),
    'NaN, an error in NumPy': (NO_LOSS, ValueError('zero-size array'), False),
    'an error that names an input': (ValueError('label has shape [0]'), GOOD, True),
    'an error that names none': (ValueError('zero-size array'), GOOD, False),
}


@pytest.mark.parametrize(('found', 'expected', 'agrees'), DEFINED.values(), ids=DEFINED)
def test_without_elements_eager_gives_a_number_or_names_an_input(unit, found, expected, agrees):
    case = case_of(Expect.DEFINED)
    assert bool(eager._values(unit, case, fixed(found), fixed(expected), ALLOWED)) is agrees


OF_ARTEFACTS = {
    'the same': (GOOD, GOOD, True),
    'another number': ({**GOOD, 'loss': 2.0}, GOOD, False),
    'anything where eager refuses': (NO_LOSS, ValueError('label has shape [0]'), True),
}


@pytest.mark.parametrize(('found', 'expected', 'agrees'), OF_ARTEFACTS.values(), ids=OF_ARTEFACTS)
def test_without_elements_an_artefact_gives_what_eager_gives(unit, found, expected, agrees):
    assert bool(backends._agree(unit, case_of(Expect.DEFINED), fixed(found), fixed(expected))) is agrees


def test_no_other_error_of_eager_or_of_the_artefact_agrees(unit):
    error = RuntimeError('broken')
    for found, expected in ((error, GOOD), (GOOD, error)):
        with pytest.raises(RuntimeError, match='broken'):
            backends._agree(unit, case_of(Expect.DEFINED), fixed(found), fixed(expected))


EAGER_REFUSALS = {
    'label': (Expect.BAD_LABEL, IndexError('label holds 9'), True),
    'label by the wrong error': (Expect.BAD_LABEL, ValueError('label holds 9'), False),
    'label, unnamed': (Expect.BAD_LABEL, IndexError('index 9 is out of range'), False),
    'shapes': (Expect.BAD_SHAPE, ValueError('label has shape [2] and cls_score has shape [3, 4]'), True),
    'shapes by the wrong error': (Expect.BAD_SHAPE, IndexError('label, cls_score'), False),
    'shapes, one unnamed': (Expect.BAD_SHAPE, ValueError('label has shape [2]'), False),
    'NaN': (Expect.BAD_LABEL, NO_LOSS, False),
    'a number': (Expect.BAD_SHAPE, GOOD, False),
}


@pytest.mark.parametrize(('expect', 'found', 'agrees'), EAGER_REFUSALS.values(), ids=EAGER_REFUSALS)
def test_eager_refuses_by_the_right_error_and_names_the_inputs(monkeypatch, unit, expect, found, agrees):
    monkeypatch.setattr(eager, 'Eager', lambda unit, device: fixed(found))
    culprits = ('label',) if expect is Expect.BAD_LABEL else ('label', 'cls_score')
    assert bool(eager._refused(unit, case_of(expect, culprits=culprits), 'cpu')) is agrees


@pytest.mark.parametrize(
    ('expect', 'found', 'is_sum', 'agrees'),
    [
        (Expect.BAD_LABEL, {'loss_a': NAN, 'loss_b': [NAN, 1.0]}, False, True),
        (Expect.BAD_LABEL, {'loss_a': NAN, 'loss_b': 1.0}, False, False),
        (Expect.BAD_LABEL, {'loss_a': NAN, 'loss_b': 1.0}, True, True),
        (Expect.BAD_LABEL, {'loss_a': INF, 'loss_b': 1.0}, True, False),
        (Expect.BAD_SHAPE, {'loss_a': NAN, 'loss_b': NAN}, True, False),
    ],
)
def test_on_cuda_an_illegal_label_gives_nan(monkeypatch, unit, expect, found, is_sum, agrees):
    """In every loss, or of a sum in one."""
    call = replace(unit.call, outputs=('loss_a', 'loss_b'), is_sum=is_sum)
    monkeypatch.setattr(eager, 'Eager', lambda unit, device: fixed(found))
    assert bool(eager._refused(replace(unit, call=call), case_of(expect), 'cuda')) is agrees


REFUSALS = {
    'error': (None, True),
    'NaN in both': ((NAN, NAN), True),
    'NaN in the loss alone': ((NAN, 0.0), False),
    'NaN in the gradient alone': ((1.0, NAN), False),
    'infinity': ((INF, INF), False),
    'numbers': ((1.0, 0.5), False),
}


@pytest.mark.parametrize(('outputs', 'is_refused'), REFUSALS.values(), ids=REFUSALS)
def test_an_artefact_refuses_by_an_error_or_by_nan_everywhere(unit, outputs, is_refused):
    def run(inputs):
        if outputs is None:
            raise RuntimeError('refused')
        return {'loss': np.array(outputs[0]), 'grad_cls_score': np.array([0.5, outputs[1]])}

    case = Case('bad', {}, Expect.BAD_LABEL)
    assert bool(backends._refused(unit, case, run)) is is_refused


@pytest.mark.parametrize(
    ('expect', 'losses', 'gradients', 'is_refused'),
    [
        (Expect.BAD_LABEL, (NAN, 1.0), (NAN, 1.0), True),
        (Expect.BAD_LABEL, (1.0, 1.0), (NAN, NAN), False),
        (Expect.BAD_LABEL, (NAN, NAN), (1.0, 1.0), False),
        (Expect.BAD_SHAPE, (NAN, NAN), (NAN, NAN), True),
        (Expect.BAD_SHAPE, (NAN, 1.0), (NAN, NAN), False),
        (Expect.BAD_SHAPE, (NAN, NAN), (NAN, 1.0), False),
    ],
)
def test_of_a_sum_an_illegal_label_spoils_one_term_and_a_wrong_shape_all(unit, expect, losses, gradients, is_refused):
    outputs = dict(zip(('loss_a', 'loss_b', 'grad_a', 'grad_b'), (*losses, *gradients), strict=True))
    unit = replace(unit, call=replace(unit.call, outputs=('loss_a', 'loss_b'), is_sum=True))
    assert bool(backends._refused(unit, case_of(expect), fixed(outputs))) is is_refused


def test_an_output_without_elements_need_not_be_nan(unit):
    outputs = {'loss': NAN, 'grad_cls_score': np.zeros((0, 3))}
    assert backends._refused(unit, case_of(Expect.BAD_LABEL), fixed(outputs))


def test_zero_means_every_output_that_is_expected(unit):
    inputs = {i.name: torch.zeros(2, 3) for i in unit.inputs}
    zero = {'loss': np.zeros(()), 'grad_cls_score': np.zeros((2, 3))}
    assert eager.exactly_zero(unit, zero, zero, inputs)
    for wrong in (
        {'loss': np.zeros(())},
        {'grad_cls_score': np.zeros((2, 3))},
        {**zero, 'loss': np.array(5e-324)},
        {**zero, 'loss': np.array(NAN)},
        {**zero, 'grad_cls_score': np.full((2, 3), NAN)},
        {**zero, 'grad_cls_score': np.zeros((0, 3))},
    ):
        assert not eager.exactly_zero(unit, wrong, zero, inputs), wrong


# Rows


def row(status, share=0.0, dtype='float32'):
    agreement = Agreement(0.0, 0.0, share=share)
    return Row(loss='XLoss', backend='eager', dtype=dtype, check='c', status=status, agreement=agreement)


def test_a_row_fails_exactly_where_its_share_is_above_1(unit):
    maker = RowMaker(unit, 'eager')
    for found in (Agreement(0.1, 0.1, '', 1.0), Agreement(0.1, 0.1, 'x', 1.5), Agreement(0.1, 0.1, 'x')):
        made = maker.judge('c', lambda found=found: found)
        assert (made.status is Status.FAIL) == (made.share > 1.0)
    assert row(Status.FAIL).share == INF
    assert row(Status.FAIL).as_json()['share'] == 'inf'
    assert row(Status.PASS, 0.25).as_json()['share'] == 0.25


def test_whatever_a_check_raises_is_a_failure(unit):
    made = RowMaker(unit, 'eager').judge('c', fixed(KeyError('loss')))
    assert (made.status, made.detail, made.share) == (Status.FAIL, "KeyError: 'loss'", INF)


@pytest.mark.parametrize(
    ('share', 'text'),
    [(0.0, '0 %'), (1e-9, '< 0.1 %'), (0.0123, '1.2 %'), (0.02, '2 %'), (0.5, '50 %'), (1.0, '100 %')],
)
def test_reports_show_the_share(share, text):
    rows = [row(Status.PASS, share), row(Status.PASS, share / 2, dtype='float64')]
    assert report.summary(rows)[1]['XLoss', '', '', '']['eager'].text == text
    assert f'| {text} |' in report.markdown(rows, {})
    cases = ElementTree.fromstring(report.junit(rows)).iter('property')
    assert [(case.get('name'), float(case.get('value'))) for case in cases] == [('share', share), ('share', share / 2)]
