"""Every registered loss, as its spec describes it: the numbers against float64, and every backend against eager."""

import inspect

import pytest

from lossreg.checks import Status, check_unit
from lossreg.exporters import build
from lossreg.exporters.verify import verify
from lossreg.registry import load_losses
from lossreg.request import Request, variants_of
from lossreg.runtimes import Eager

REQUESTS = {name: variants_of(name) for name in load_losses()}
ARTEFACTS = ('torchscript', 'pt2', 'ort-cpu')


def units(every_set=False):
    """All units of all variants, without and with optional inputs, or with every set of these."""
    return [unit for requests in REQUESTS.values() for request in requests for unit in request.units(every_set)]


def exported_units():
    """The units of the default variant and one more, and of the first variant that allows a further call."""
    chosen = []
    for requests in REQUESTS.values():
        calls = set()
        for number, request in enumerate(requests):
            new = {call.name for call in request.calls()} - calls
            if number < 2 or new:
                chosen += [unit for unit in request.units() if number < 2 or unit.call.name in new]
            calls |= new
    return chosen


def name_of(unit):
    present = '+'.join(i.name for i in unit.inputs if i.optional) or 'required'
    return f'{unit.name}-{unit.variant}-{unit.call.name}-{present}'


def assert_all_pass(rows):
    assert rows
    assert not [row for row in rows if row.status is not Status.PASS]


@pytest.mark.parametrize('unit', units(), ids=name_of)
def test_eager(unit):
    assert_all_pass(list(check_unit(unit, ('eager',))))


@pytest.mark.parametrize('unit', exported_units(), ids=name_of)
def test_artefacts(unit):
    rows = list(check_unit(unit, ARTEFACTS))
    assert_all_pass(rows)
    assert {(row.backend, row.grad) for row in rows} == {(b, grad) for b in ARTEFACTS for grad in (False, True)}


@pytest.mark.parametrize('name', REQUESTS)
def test_options_may_be_integers(name):
    """Configs say ``beta=10`` as well as ``beta=10.0``; TorchScript would tell them apart."""
    options = {p.name: 1 for p in inspect.signature(load_losses()[name]).parameters.values() if p.annotation is float}
    unit = next(iter(Request.of({'type': name, **options}).units()))
    assert options
    assert verify(unit, build(unit, ['torchscript'], grad=False)['torchscript'], 'pt', grad=False)


def test_eager_elsewhere_leaves_the_loss_where_it_was():
    unit = next(iter(Request.of({'type': 'CrossEntropyLoss', 'class_weight': [0.5, 2.0]}).units()))
    Eager(unit, grad=False, device='meta')
    assert unit.loss.class_weight.device.type == 'cpu'


@pytest.mark.cuda
@pytest.mark.parametrize('unit', exported_units(), ids=name_of)
def test_cuda(unit):
    rows = list(check_unit(unit, ('eager', 'torchscript', 'ort-cuda'), device='cuda'))
    assert_all_pass(rows)
    assert [row.grad for row in rows if row.check == 'placement'] == [False, True]


@pytest.mark.exhaustive
@pytest.mark.parametrize('unit', units(every_set=True), ids=name_of)
def test_everything(unit):
    assert_all_pass(list(check_unit(unit, ('eager', *ARTEFACTS))))


@pytest.mark.parametrize('name', REQUESTS)
def test_every_loss_has_a_default_variant_first(name):
    assert REQUESTS[name][0].variant == 'default'
    assert list(REQUESTS[name][0].config) == ['type']
    assert len(REQUESTS[name]) > 1, 'a second variant is exported too'
