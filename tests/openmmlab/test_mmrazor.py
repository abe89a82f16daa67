"""mmrazor: inputs that the specs do not draw, and our differences from it."""

import inspect
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from packages import host_class, losses_of
from pairs import (
    EXACT,
    arguments_of,
    assert_call_agrees,
    evaluate,
    evaluate_host,
    fill,
    ordinary_inputs,
    pair_of,
    paired,
    real,
    stand_ins,
)
from shown import shows

from lossreg.compare import compare
from lossreg.registry import build_loss, load_losses
from lossreg.request import Request, variants_of
from lossreg.spec import HostClass

pytestmark = pytest.mark.openmmlab

pytest.importorskip('mmrazor', reason='needs the real OpenMMLab packages: tests/openmmlab/install.sh VENV')


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


def teachers():
    """All our losses with a student and a teacher, in the first variant."""
    for cls, host in stand_ins():
        if host.name.startswith('mmrazor.') and len(inspect.signature(cls.forward).parameters) > 2:
            yield pytest.param(cls, host, id=cls.__name__)


@pytest.mark.parametrize(('cls', 'host'), teachers())
def test_gradient_of_the_teacher(cls, host: HostClass):
    """mmrazor runs teachers without gradient, except in data-free distillation, where they train a generator."""
    unit, *_ = variants_of(cls.__name__)[0].units()
    pair = paired(unit, host_class(host.name)())
    _, inputs = next(ordinary_inputs(unit))
    arguments = arguments_of(unit, inputs, torch.float64)
    for given in arguments.values():
        for x in given if isinstance(given, tuple) else (given,):
            x.requires_grad_(x.is_floating_point())
    got, want = evaluate(unit.loss, arguments, unit.call), evaluate_host(pair.host, arguments, unit.call)
    assert np.isfinite(want['loss'])
    agreement = compare(got, {name: fill(value, got[name], []) for name, value in want.items()}, EXACT)
    assert agreement, agreement.detail
    assert all(np.isfinite(value).all() for value in got.values())


def test_pkd_of_several_levels():
    host, ours = host_class('mmrazor.PKDLoss')(loss_weight=2.0), build_loss({'type': 'PKDLoss', 'loss_weight': 2.0})
    student, teacher = (real(2, 3, 6, 5), real(2, 3, 4, 4)), (real(2, 3, 3, 5), real(2, 3, 4, 4))
    torch.testing.assert_close(ours(student, teacher), host(student, teacher), rtol=1e-9, atol=0)
    torch.testing.assert_close(torch.jit.script(ours)(list(student), list(teacher)), ours(student, teacher))
    torch.testing.assert_close(ours(iter(student), iter(teacher)), ours(student, teacher))


@pytest.mark.parametrize('places', [(), (1,), (7,), (3, 4, 5)])
def test_attention_of_any_number_of_dimensions(places):
    pair, teacher = pair_of('ATLoss', 'maps'), real(5, 2, *places)
    assert_call_agrees(pair, real(5, 3, *places), teacher)
    for student in (real(5), real(5, 3, *places, 1), real(4, 3, *places)):
        with pytest.raises(ValueError, match='t_feature'):
            pair.ours.loss(student, teacher)


@pytest.mark.parametrize('name', ['OnehotLikeLoss', 'InformationEntropyLoss'])
def test_options_that_mmrazor_takes_as_keywords(name):
    unit, *_ = Request.of({'type': name, 'loss_weight': 5.0}).units()
    assert_call_agrees(paired(unit, host_class(f'mmrazor.{name}')(loss_weight=5.0)), real(4, 7))


def test_maps_of_decisions():
    assert_call_agrees(pair_of('RazorCrossEntropyLoss', 'images'), real(2, 4, 3, 5), real(2, 4, 3, 5))
    assert_call_agrees(pair_of('OnehotLikeLoss', 'images'), real(2, 4, 3, 5))


def test_soft_labels_with_every_weight():
    pair = pair_of('KDSoftCELoss', 'vectors', tau=2.0, loss_weight=0.5)
    for avg_factor in (None, 2.5):
        assert_call_agrees(pair, real(4, 7), real(4, 7), torch.tensor([0.5, 0.0, 2.0, 1.0]).double(), avg_factor)
    assert_call_agrees(pair, real(4, 7), real(4, 7), None, None, 'sum')


def test_contrast_is_that_of_the_memory():
    """The first batch, in which mmrazor's CRDLoss sets its constants, and a second one, which keeps them."""
    host = host_class('mmrazor.CRDLoss')(temperature=0.125, neg_num=4, sample_n=20, dim_out=6).double()
    ours = build_loss(
        {'type': 'ContrastiveRepresentationLoss', 'temperature': 0.125, 'sample_n': 20, 'loss_weight': 1.0}
    )
    chosen = torch.randint(0, 20, (3, 5))
    samples = [SampleFields(sample_idx=row[0], contrast_sample_idxs=row) for row in chosen]
    constants = {}
    for _ in range(2):
        memory = {
            f'{k}_contrast': getattr(host.contrast, v)[chosen] for k, v in (('s', 'memory_v1'), ('t', 'memory_v2'))
        }
        student, teacher = (torch.nn.functional.normalize(real(3, 6)).requires_grad_() for _ in range(2))
        got = evaluate(ours, {'s_feats': student, 't_feats': teacher, **memory, **constants})
        want = evaluate(host, {'s_feats': student, 't_feats': teacher, 'data_samples': samples})
        want['loss'] = want['loss'].reshape(())
        agreement = compare(got, want, EXACT)
        assert agreement, agreement.detail
        constants = {'z_s': host.contrast.params[2], 'z_t': host.contrast.params[3]}


class SampleFields(SimpleNamespace):
    """A data sample that supports ``in``."""

    def __contains__(self, name):
        return hasattr(self, name)


def test_mmrazor_leaves_out_the_weight_of_crd():
    """Ours uses it, so it stands in for no host: a config's loss_weight=0.8 would change the numbers."""
    losses_of('mmrazor')
    host = host_class('mmrazor.CRDLoss')
    assert 'loss_weight' not in inspect.getsource(host.forward)
    assert not any(h.name == 'mmrazor.CRDLoss' for cls in load_losses().values() for h in cls.spec.stands_in_for)


# Differences


@shows(
    'inputs of different shapes',
    'KLDivergence', 'DISTLoss', 'DKDLoss', 'WSLD', 'KDSoftCELoss', 'FTLoss', 'ABLoss', 'OFDLoss', 'RazorL1Loss',
    'RazorL2Loss',
)  # fmt: skip
def test_one_teacher_for_all(ours, host):
    options = {'num_classes': 4} if 'num_classes' in inspect.signature(ours).parameters else {}
    call = [real(3, 4), real(1, 4)]
    if 'gt_labels' in inspect.signature(ours.forward).parameters:
        call.append(torch.tensor([0, 1, 3]))
    assert host(**options)(*call).isfinite().all()
    with pytest.raises(ValueError, match=r'\[1, 4\]'):
        ours(**options)(*call)


@shows('inputs of different shapes', 'FBKDLoss')
def test_one_relation_for_all(ours, host):
    masks, maps, channels = real(2, 1, 3, 3), real(2, 4, 3, 3), real(2, 4)
    student = (masks, real(2, 4, 1, 1), channels, masks, maps[:1], maps)
    teacher = (masks, real(2, 4, 1, 1), masks, maps, maps)
    assert host()(student, teacher).isfinite()
    with pytest.raises(ValueError, match='s_relation_adapt'):
        ours()(student, teacher)


@shows('maps of other batches or channels', 'ChannelWiseDivergence')
def test_maps_of_other_batches(ours, host):
    for teacher in (real(3, 2, 4, 4), real(1, 1, 4, 4)):
        assert host()(real(2, 3, 4, 4), teacher).isfinite()
        with pytest.raises(ValueError, match='preds_T'):
            ours()(real(2, 3, 4, 4), teacher)


@shows('maps with their height and width exchanged', 'ATLoss')
def test_maps_turned_over(ours, host):
    for teacher in (real(2, 3, 5, 4), real(1, 3, 4, 5)):
        assert host()(real(2, 3, 4, 5), teacher).isfinite()
        with pytest.raises(ValueError, match='t_feature'):
            ours()(real(2, 3, 4, 5), teacher)


@shows('one height but other widths', 'PKDLoss')
def test_other_widths(ours, host):
    call = real(2, 3, 4, 5), real(2, 3, 4, 7)
    with pytest.raises(AssertionError):
        host()(*call)
    resized = torch.nn.functional.interpolate(call[0], (4, 7), mode='bilinear')
    torch.testing.assert_close(ours()(*call), host()(resized, call[1]), rtol=1e-9, atol=0)


@shows('lists of other lengths', 'PKDLoss')
def test_levels_that_one_lacks(ours, host):
    level = real(2, 3, 4, 4), real(2, 3, 4, 4)
    torch.testing.assert_close(host()(level, level[1:]), host()(level[:1], level[1:]))
    with pytest.raises(ValueError, match='levels'):
        ours()(level, level[1:])


@shows('a teacher that is NaN', 'ABLoss', 'RazorCrossEntropyLoss')
def test_teacher_without_value(ours, host):
    student, teacher = real(2, 3), real(2, 3)
    teacher[0, 1] = torch.nan
    assert host()(student, teacher).isfinite()
    assert ours()(student, teacher).isnan()


@shows('a teacher with other classes', 'RazorCrossEntropyLoss')
def test_teacher_of_other_classes(ours, host):
    call = real(2, 5), real(2, 3)
    assert host()(*call).isfinite()
    with pytest.raises(ValueError, match='preds_T'):
        ours()(*call)
