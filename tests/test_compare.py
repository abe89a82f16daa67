"""The arithmetic of the checks: what counts as equal, how much results may differ, and how rows report it."""

import math
import xml.etree.ElementTree as ElementTree
from dataclasses import replace

import numpy as np
import pytest
import torch

from lossreg import report
from lossreg.checks import backends, eager
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


def off_by(unit, factor, dtype):
    """The unit of a loss whose value in ``dtype`` is off by a factor."""

    class Off(type(unit.loss)):
        def forward(self, cls_score, label, **options):
            loss = super().forward(cls_score, label, **options)
            return loss * factor if cls_score.dtype is dtype else loss

    healthy = type(unit.loss)
    Off.__module__ = healthy.__module__
    return replace(unit, loss=Off())


@pytest.mark.parametrize(('dtype', 'bound'), [(torch.float32, 1e-5), (torch.float64, 1e-7)], ids=['float32', 'float64'])
def test_eager_is_as_exact_as_it_says(unit, dtype, bound):
    """For a value near 2, an error of three times the tolerance is found, one of a third is not."""
    for factor, is_found in ((1.0 + 3 * bound, True), (1.0 + bound / 3, False)):
        rows = [row for row in eager.eager_rows(off_by(unit, factor, dtype), 'cpu') if row.check == 'ordinary']
        failed = {row.dtype for row in rows if row.status is Status.FAIL}
        assert failed == ({str(dtype).removeprefix('torch.')} if is_found else set())
        assert all((row.share > 1.0) == (row.status is Status.FAIL) for row in rows)


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
