"""mmaction: calls that the specs' inputs do not draw, and our differences from it."""

import pytest
import torch
from pairs import assert_call_agrees, pair_of, real
from shown import shows

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


# Differences


@shows('overflows', 'CBFocalLoss')
def test_overflow_of_the_focal_factor(ours, host):
    options = {'samples_per_cls': [1, 1], 'beta': 0.5}
    scores, label = torch.tensor([[-1e4, -1e4]], dtype=torch.float64), torch.tensor([0])
    assert host(**options)(scores, label) == 0
    assert ours(**options)(scores, label) == 1e4
    torch.testing.assert_close(host(**options)(scores / 20, label), ours(**options)(scores / 20, label))
