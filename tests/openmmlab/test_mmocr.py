"""mmocr: inputs that the specs do not draw, and our differences from it."""

import numpy as np
import pytest
import torch
from packages import host_class, is_torchs
from pairs import assert_call_agrees, evaluate, pair_of, real
from shown import shows
from torch import nn

from lossreg.hosts import stand_ins
from lossreg.registry import load_losses

pytestmark = pytest.mark.openmmlab

pytest.importorskip('mmocr', reason='needs the real OpenMMLab packages: tests/openmmlab/install.sh VENV')

LOGITS = ('MaskedBCEWithLogitsLoss', 'MaskedBalancedBCEWithLogitsLoss')
PROBABILITIES = ('MaskedBCELoss', 'MaskedBalancedBCELoss')
BALANCED = ('MaskedBalancedBCEWithLogitsLoss', 'MaskedBalancedBCELoss')
MASKED = (*LOGITS, *PROBABILITIES, 'MaskedDiceLoss', 'MaskedSquareDiceLoss', 'MaskedSmoothL1Loss')


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


def maps(shape=(2, 5, 6)):
    """Predictions, binary targets and a binary mask."""
    return real(*shape).sigmoid(), (real(*shape) > 0).double(), (real(*shape) > -0.5).double()


@pytest.mark.parametrize('name', MASKED)
@pytest.mark.parametrize('shape', [(4,), (3, 7), (2, 1, 5, 6)])
def test_masked_maps_of_any_shape(name, shape):
    pair = pair_of(name, 'maps')
    pred, gt, mask = maps(shape)
    assert_call_agrees(pair, pred, gt, mask)
    assert_call_agrees(pair, pred, gt, torch.zeros(shape).double())
    assert_call_agrees(pair, pred, gt)


@pytest.mark.parametrize('fallback', [0, 3, 1000])
@pytest.mark.parametrize('name', BALANCED)
def test_no_positives(name, fallback):
    pair = pair_of(name, 'maps', fallback_negative_num=fallback, negative_ratio=1.5)
    pred, gt, mask = maps()
    assert_call_agrees(pair, pred, torch.zeros_like(gt), mask)
    assert_call_agrees(pair, pred, torch.ones_like(gt), mask)
    # their sum is truncated to 0
    assert_call_agrees(pair, pred, torch.full_like(gt, 0.01), mask)


@pytest.mark.parametrize('name', ['TorchSmoothL1Loss', 'TorchCrossEntropyLoss'])
def test_torchs_losses(name):
    """mmocr registers two of torch's losses unchanged."""
    (host,) = (n for n, found in stand_ins().items() if found.loss is load_losses()[name] and n.startswith('mmocr.'))
    assert is_torchs(host_class(host))
    assert issubclass(host_class(host), getattr(nn, host.partition('.')[2]))


def text_maps(labels, kernel=None, mask=None):
    """Embeddings, and the other maps as floats, as PANModuleLoss gives them."""
    labels = torch.tensor([labels], dtype=torch.float32)
    kernel = (real(*labels.shape) > 0).float() * labels if kernel is None else torch.tensor([kernel]).float()
    mask = (real(*labels.shape) > -1).float() if mask is None else torch.tensor([mask]).float()
    return real(1, 4, *labels.shape[1:]), labels, kernel, mask


@pytest.mark.parametrize(
    'labels',
    [
        [[0, 1, 1, 2, 2, 3], [3, 0, 1, 2, 2, 3], [1, 1, 1, 0, 7, 7]],
        # a single instance
        [[0, 5, 5, 5, 0, 0]],
    ],
)
def test_text_instances(labels):
    assert_call_agrees(pair_of('PANEmbLossV1', 'maps'), *text_maps(labels))
    assert_call_agrees(pair_of('PANEmbLossV1', 'maps'), *text_maps(labels, labels, np.ones_like(labels).tolist()))


@pytest.mark.parametrize('labels', [[[1, 1, 2, 2, 3, 3, 3]], [[2, 2, 1]], [[1, 4, 3, 3]]])
def test_text_without_background(labels):
    """mmocr treats the lowest label as background."""
    assert_call_agrees(pair_of('PANEmbLossV1', 'maps'), *text_maps(labels, labels, np.ones_like(labels).tolist()))


@pytest.mark.parametrize('labels', [[[0, 0, 0]], [[1, 1, 1]], [[0, 1, 1]]])
def test_no_text(labels):
    """Without instances, background and kernels, mmocr returns a constant 0, so there is no gradient to compare."""
    emb, *maps = text_maps(labels, labels if 1 not in labels[0] or 0 not in labels[0] else [[0, 0, 0]], [[1, 1, 1]])
    loss = load_losses()['PANEmbLossV1']()(emb.requires_grad_(), *maps)
    assert loss.tolist() == host_class('mmocr.PANEmbLossV1')()(emb, *maps).tolist() == [0.0]
    assert not torch.autograd.grad(loss.sum(), emb)[0].any()


# Differences


@shows('an empty batch', *MASKED)
def test_empty_batch(ours, host):
    nothing = torch.zeros(0, 3)
    with pytest.raises((AssertionError, RuntimeError)):
        host()(nothing, nothing)
    assert ours()(nothing, nothing).item() == 0.0


@shows('contributes 0; mmocr', *MASKED)
def test_nan_under_mask(ours, host):
    pred, gt, mask = maps()
    counted = ours()(torch.where(mask == 0, torch.nan, pred), gt, mask)
    torch.testing.assert_close(counted, ours()(pred, gt, mask))
    if ours.__name__ in PROBABILITIES:
        with pytest.raises(AssertionError):
            host()(torch.where(mask == 0, torch.nan, pred), gt, mask)
    else:
        assert host()(torch.where(mask == 0, torch.nan, pred), gt, mask).isnan()


@shows('a target outside [0, 1]', *LOGITS, *PROBABILITIES)
def test_out_of_range(ours, host):
    pred, gt, _ = maps()
    with pytest.raises(AssertionError):
        host()(pred, 2.0 * gt)
    assert ours()(pred, 2.0 * gt).isfinite()
    if ours.__name__ in PROBABILITIES:
        with pytest.raises(AssertionError):
            host()(2.0 * pred, gt)
        assert ours()(2.0 * pred, gt).isnan()


@shows('gradient of probabilities', *PROBABILITIES)
def test_gradient_at_certainty(ours, host):
    call = {'pred': torch.zeros(1, 1).double().requires_grad_(), 'gt': torch.ones(1, 1).double()}
    got, want = (evaluate(loss(), call) for loss in (ours, host))
    assert got['loss'] == pytest.approx(want['loss'])
    assert got['gradient 0'].item() == 0.0
    assert abs(want['gradient 0'].item()) > 1e11


@shows('are refused', *BALANCED)
def test_reduced_before_balancing(ours, host):
    pred, gt, mask = maps()
    moved = torch.where(mask == 0, 0.5 * pred, pred)
    for reduction in ('mean', 'sum'):
        loss = host(reduction=reduction)
        assert not torch.equal(loss(pred, gt, mask), loss(moved, gt, mask))
        with pytest.raises(ValueError, match=reduction):
            ours(reduction=reduction)
    assert torch.equal(ours()(pred, gt, mask), ours()(moved, gt, mask))


@shows('equally hard negatives', *BALANCED)
def test_gradient_at_ties(ours, host):
    """One positive and eight equal negatives, three of which count."""
    call = {'pred': torch.full((1, 9), 0.5).double().requires_grad_(), 'gt': torch.eye(9)[:1].double()}
    got, want = (evaluate(loss(), call) for loss in (ours, host))
    assert got['loss'] == pytest.approx(want['loss'])
    assert np.flatnonzero(got['gradient 0']).tolist() == [0, 1, 2, 3]
    assert np.count_nonzero(want['gradient 0']) == 4


@shows('above max_instances', 'PANEmbLossV1')
def test_illegal_instance(ours, host):
    for label in (-2, 7):
        emb, *maps = text_maps([[0, 1, 1, label]], [[0, 1, 1, 1]], [[1, 1, 1, 1]])
        assert host()(emb, *maps).isfinite().all()
        with pytest.raises(IndexError, match=f'{label}, but labels go from 0 to 6'):
            ours(max_instances=6)(emb, *maps)


@shows('float64 embeddings', 'PANEmbLossV1')
def test_precision(ours, host):
    call = text_maps([[0, 1, 1, 2, 2]], [[0, 1, 1, 2, 2]], [[1, 1, 1, 1, 1]])
    assert ours()(*call).dtype == torch.float64
    assert host()(*call).dtype == torch.float32
