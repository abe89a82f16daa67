"""mmaction: inputs that the specs do not draw, and our differences from it."""

from dataclasses import replace

import pytest
import torch
from mmengine.config import ConfigDict
from packages import host_class
from pairs import EXACT, arguments_of, assert_call_agrees, evaluate, evaluate_host, pair_of, real
from shown import shows

from lossreg.compare import compare
from lossreg.registry import build_loss
from lossreg.request import Request
from lossreg.samples import Kind, draw

pytestmark = pytest.mark.openmmlab

pytest.importorskip('mmaction', reason='needs the real OpenMMLab packages: tests/openmmlab/install.sh VENV')


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


@pytest.mark.parametrize('class_weight', [None, [0.5, 1.0, 2.0, 1.25]])
def test_cross_entropy_of_any_shape(class_weight):
    pair = pair_of('ActionCrossEntropyLoss', 'labels', class_weight=class_weight)
    label = torch.randint(0, 4, (2, 3, 2))
    label[0, 0, 0] = -100
    assert_call_agrees(pair, real(2, 4, 3, 2), label)
    # labels smoothed by the head
    assert_call_agrees(pair, real(3, 4), 0.9 * torch.eye(4)[[0, 3, 1]].double() + 0.025)
    # several labels per sample
    assert_call_agrees(pair, real(3, 4), (real(3, 4) > 0).long())


def test_likelihood_of_any_shape():
    assert_call_agrees(pair_of('ActionNLLLoss', 'labels'), real(2, 4, 3, 2), torch.randint(0, 4, (2, 3, 2)))


def test_binary_cross_entropy_of_any_shape():
    pair = pair_of('BCELossWithLogits', 'multi_label', class_weight=[0.5, 1.0, 2.0, 1.25])
    assert_call_agrees(pair, real(2, 3, 4), real(2, 3, 4).sigmoid())


def test_options_of_a_call():
    """BSN gives the threshold in each call, by position."""
    pair = pair_of('BinaryLogisticRegressionLoss', 'scores')
    assert_call_agrees(pair, torch.rand(3, 7).double(), torch.rand(3, 7).double(), 0.7)
    assert_call_agrees(pair, torch.rand(3, 7).double(), torch.rand(3, 7).double(), 0.2, (1.5, 3.0), 1e-3)
    assert_call_agrees(pair, torch.rand(9).double(), torch.zeros(9).double())


def test_random_draws_of_proposals():
    """Ours draws in mmaction's order; the weights of the terms are arguments of the call."""
    pair = pair_of('BMNLoss', 'maps')
    inputs = draw(pair.ours, sizes={'N': 2, 'D': 5, 'T': 6})
    call = [x.double() for name, x in inputs.items() if not name.startswith('noise')]
    for weights in ((), (2.0, 3.0, 0.5)):
        found = []
        for loss in (pair.ours.loss, pair.host):
            torch.manual_seed(1)
            found.append(torch.stack(loss(*call, *weights)))
        torch.testing.assert_close(*found, rtol=1e-6, atol=0)


def test_nothing_outside_the_mask_of_proposals():
    loss, unit = build_loss('BMNLoss'), pair_of('BMNLoss', 'maps').ours
    inputs = draw(unit, sizes={'N': 2, 'D': 5, 'T': 6})
    # at least as many middle overlaps as high ones, or mmaction takes elements outside the mask
    inputs['gt_iou_map'] = torch.rand(2, 5, 6) * 0.8
    outside = inputs['bm_mask'] == 0
    assert outside.any()
    want = torch.stack(loss(**inputs))
    for name, scores in (('gt_iou_map', outside), ('pred_bm', outside.expand(2, 2, 5, 6))):
        inputs[name] = inputs[name].masked_fill(scores, torch.nan)
    assert torch.equal(torch.stack(loss(**inputs)), want)


@pytest.fixture
def _in_float64():
    """Makes the tensors that mmaction creates float64, and with them its completeness loss."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


RATIOS = {
    'default': {'num_per_video': 8, 'positive_ratio': 1, 'background_ratio': 1, 'incomplete_ratio': 6},
    'many_positives': {'num_per_video': 9, 'positive_ratio': 3, 'background_ratio': 1, 'incomplete_ratio': 5},
    'rounded': {'num_per_video': 10, 'positive_ratio': 1.5, 'background_ratio': 1, 'incomplete_ratio': 4},
}


def of_videos(sampler):
    """SSN's training configuration."""
    loss_weight = {'comp_loss_weight': 0.1, 'reg_loss_weight': 0.3}
    return ConfigDict({'ssn': {'sampler': sampler, 'loss_weight': loss_weight}})


def segments(**options):
    """Our unit; mmaction's loss takes the sampler only in the call."""
    return next(Request.of({'type': 'SSNLoss', **options}).units())


@pytest.mark.usefixtures('_in_float64')
@pytest.mark.parametrize('kind', [Kind.ORDINARY, Kind.EXTREME])
@pytest.mark.parametrize('name', RATIOS)
def test_structured_segments(name, kind):
    """The sampler is an argument of the call, or in our loss of the constructor."""
    options = {**RATIOS[name], 'comp_loss_weight': 0.1, 'reg_loss_weight': 0.3}
    train_cfg = of_videos(RATIOS[name])
    unit = segments(**options)
    host = host_class('mmaction.SSNLoss')()
    for seed, videos in enumerate((1, 2, 5)):
        sizes = {'N': videos * options['num_per_video'], 'A': 5, 'C': 4, 'types': 3}
        arguments = arguments_of(unit, draw(unit, kind, sizes, seed), torch.float64)
        want = evaluate_host(host, {**arguments, 'train_cfg': train_cfg}, unit.call)
        for loss, given in ((unit.loss, {}), (build_loss('SSNLoss'), {'train_cfg': train_cfg})):
            agreement = compare(evaluate(loss, {**arguments, **given}, unit.call), want, EXACT, kind is Kind.EXTREME)
            assert agreement, agreement.detail


@pytest.mark.usefixtures('_in_float64')
def test_structured_segments_without_locations():
    unit = segments()
    arguments = arguments_of(unit, draw(unit), torch.float64) | {'bbox_pred': None, 'bbox_targets': None}
    call = replace(unit.call, outputs=unit.call.outputs[:2])
    host = host_class('mmaction.SSNLoss')()
    scores = {**arguments, 'bbox_targets': torch.zeros(0)}
    want = evaluate_host(host, {**scores, 'train_cfg': of_videos(RATIOS['default'])}, call)
    assert compare(evaluate(unit.loss, arguments, call), want, EXACT)


def test_structured_segments_that_are_not_whole():
    unit = segments()
    inputs = draw(unit)
    inputs['proposal_type'][0] = 2
    losses = unit.loss(**inputs)
    assert losses['loss_completeness'].isnan()
    assert losses['loss_activity'].isfinite()


# Differences


@shows('a completeness score that is NaN', 'SSNLoss')
def test_nan_completeness(ours, host):
    inputs = draw(segments())
    inputs['completeness_score'][0] = torch.nan
    assert host()(**inputs, train_cfg=of_videos(RATIOS['default']))['loss_completeness'].isfinite()
    assert ours()(**inputs)['loss_completeness'].isnan()


@shows('a label 0', 'SSNLoss')
def test_background_label_of_a_proposal(ours, host):
    inputs, train_cfg = draw(segments()), of_videos(RATIOS['default'])
    found = []
    for label in (0, inputs['completeness_score'].shape[1]):
        inputs['labels'][1] = label
        found.append(host()(**inputs, train_cfg=train_cfg)['loss_completeness'])
    assert torch.equal(*found)
    inputs['labels'][1] = 0
    with pytest.raises(IndexError, match='labels'):
        ours()(**inputs)


@shows('a label that is NaN', 'BinaryLogisticRegressionLoss')
def test_nan_labels(ours, host):
    scores, labels = torch.full((1, 2), 0.25), torch.tensor([[1.0, torch.nan]])
    torch.testing.assert_close(host()(scores, labels), host()(scores, labels.nan_to_num()))
    assert ours()(scores, labels).isnan()


@shows('a label that is NaN', 'BMNLoss')
def test_nan_ends(ours, host):
    inputs = draw(pair_of('BMNLoss', 'maps').ours)
    call = [x for name, x in inputs.items() if not name.startswith('noise')]
    call[4] = torch.full_like(call[4], torch.nan)
    assert host()(*call)[1].isfinite()
    assert ours()(*call)[1].isnan()


@shows('overflows', 'CBFocalLoss')
def test_overflow_of_the_focal_factor(ours, host):
    options = {'samples_per_cls': [1, 1], 'beta': 0.5}
    scores, label = torch.tensor([[-1e4, -1e4]], dtype=torch.float64), torch.tensor([0])
    assert host(**options)(scores, label) == 0
    assert ours(**options)(scores, label) == 1e4
    torch.testing.assert_close(host(**options)(scores / 20, label), ours(**options)(scores / 20, label))
