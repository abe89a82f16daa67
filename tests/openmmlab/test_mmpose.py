"""mmpose: inputs that the specs do not draw, and our differences from it."""

import math

import pytest
import torch
from pairs import assert_agree, pair_of, real
from shown import shows

from lossreg.registry import build_loss
from lossreg.samples import draw

pytestmark = pytest.mark.openmmlab

pytest.importorskip('mmpose', reason='needs the real OpenMMLab packages: tests/openmmlab/install.sh VENV')


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


@pytest.mark.parametrize('mask', [[0, 2], [-1]])
def test_keypoint_mask_weight(mask):
    pair = pair_of('KLDiscretLoss', 'pairs', mask=mask, mask_weight=0.3)
    assert_agree(pair, draw(pair.ours, sizes={'N': 2, 'K': 3, 'W': 8, 'H': 6}))


def test_keypoint_weights_with_a_last_dimension():
    pair = pair_of('KLDiscretLoss', 'pairs', beta=10.0, label_softmax=True)
    weight = real(2, 3, 1).abs()
    inputs = draw(pair.ours, sizes={'N': 2, 'K': 3, 'W': 8, 'H': 6})
    assert_agree(pair, inputs | {'target_weight': weight})


def test_five_tensor_call_of_simccs_first_code():
    """For each keypoint, the mean over the batch of each axis's weighted mean over bins."""
    n, k, sizes = 3, 4, (8, 6)
    logits = [real(n, k, size) for size in sizes]
    targets = [real(n, k, size).softmax(-1) for size in sizes]
    weight = real(n, k).abs()
    expected = 0.0
    for joint in range(k):
        for x, t in zip(logits, targets, strict=True):
            for sample in range(n):
                normaliser = math.log(sum(math.exp(v) for v in x[sample, joint]))
                bins = [
                    float(tb) * (math.log(tb) - (float(xb) - normaliser))
                    for xb, tb in zip(x[sample, joint], t[sample, joint], strict=True)
                ]
                expected += sum(bins) / len(bins) * float(weight[sample, joint]) / n / k
    for given in (weight, weight.unsqueeze(-1)):
        assert float(build_loss('KLDiscretLoss')(*logits, *targets, given)) == pytest.approx(expected, rel=1e-12)


# Differences


@shows('NaN under a zero target weight', 'KLDiscretLoss')
def test_nan_without_weight(ours, host):
    x, t = torch.zeros(1, 2, 3), torch.full((1, 2, 3), 0.5)
    x[0, 1] = torch.nan
    call = (x, x), (t, t), torch.tensor([[1.0, 0.0]])
    assert host()(*call).isnan()
    assert ours()(*call).isfinite()
