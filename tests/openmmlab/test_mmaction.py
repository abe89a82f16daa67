"""mmaction: calls that the specs' inputs do not draw, and our differences from it."""

import pytest
import torch
from pairs import assert_call_agrees, pair_of, real
from shown import shows

from lossreg.registry import build_loss
from lossreg.samples import draw

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
    # label smoothing of the head
    assert_call_agrees(pair, real(3, 4), 0.9 * torch.eye(4)[[0, 3, 1]].double() + 0.025)
    # several labels of one sample
    assert_call_agrees(pair, real(3, 4), (real(3, 4) > 0).long())


def test_likelihood_of_any_shape():
    assert_call_agrees(pair_of('ActionNLLLoss', 'labels'), real(2, 4, 3, 2), torch.randint(0, 4, (2, 3, 2)))


def test_binary_cross_entropy_of_any_shape():
    pair = pair_of('BCELossWithLogits', 'multi_label', class_weight=[0.5, 1.0, 2.0, 1.25])
    assert_call_agrees(pair, real(2, 3, 4), real(2, 3, 4).sigmoid())


def test_options_of_a_call():
    """BSN gives the threshold with each call, by position."""
    pair = pair_of('BinaryLogisticRegressionLoss', 'scores')
    assert_call_agrees(pair, torch.rand(3, 7).double(), torch.rand(3, 7).double(), 0.7)
    assert_call_agrees(pair, torch.rand(3, 7).double(), torch.rand(3, 7).double(), 0.2, (1.5, 3.0), 1e-3)
    assert_call_agrees(pair, torch.rand(9).double(), torch.zeros(9).double())


def test_random_draws_of_proposals():
    """Ours draws in the order of mmaction's; weights of the terms are arguments of the call."""
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
    # as many middle overlaps as high ones and more, or mmaction takes elements outside the mask
    inputs['gt_iou_map'] = torch.rand(2, 5, 6) * 0.8
    outside = inputs['bm_mask'] == 0
    assert outside.any()
    want = torch.stack(loss(**inputs))
    for name, scores in (('gt_iou_map', outside), ('pred_bm', outside.expand(2, 2, 5, 6))):
        inputs[name] = inputs[name].masked_fill(scores, torch.nan)
    assert torch.equal(torch.stack(loss(**inputs)), want)


# Differences


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
