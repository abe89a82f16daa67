"""mmpose's other losses: calls that the specs' inputs do not draw, and our differences from it."""

import pytest
import torch
from packages import host_class
from pairs import EXACT, assert_call_agrees, evaluate, evaluate_host, pair_of, real
from shown import shows

from lossreg.compare import compare
from lossreg.registry import build_loss

pytestmark = pytest.mark.openmmlab

pytest.importorskip('mmpose', reason='needs the real OpenMMLab packages: tests/openmmlab/install.sh VENV')

COCO = 'configs/_base_/datasets/coco.py'


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


def gradient_of(loss, x, *rest):
    """The value, and the gradient with respect to the first argument."""
    x = x.clone().requires_grad_()
    value = loss(x, *rest)
    return value.detach(), torch.autograd.grad(value.sum(), x)[0]


@pytest.mark.filterwarnings('ignore:.*does not exist')
@pytest.mark.parametrize('norm', [False, True])
@pytest.mark.parametrize('mode', ['linear', 'square', 'log'])
def test_oks_of_a_data_set(mode, norm):
    """As RTMO and YOLOX-Pose call it: sigmas of COCO, pixels, and instances without a visible keypoint."""
    options = {'metainfo': COCO, 'mode': mode, 'norm_target_weight': norm, 'reduction': 'none', 'loss_weight': 30.0}
    ours, host = build_loss({'type': 'OKSLoss', **options}), host_class('mmpose.OKSLoss')(**options)
    ours.load_state_dict(host.state_dict())
    target = 100 * real(6, 17, 2)
    visible = torch.rand(6, 17).round().double()
    if mode != 'log':
        visible[2] = 0
    call = {
        'output': (target + 8 * real(6, 17, 2)).requires_grad_(),
        'target': target,
        'target_weight': visible,
        'areas': 5000 * torch.rand(6).double() + 500,
    }
    agreement = compare(evaluate(ours.double(), call), evaluate_host(host, call), EXACT)
    assert agreement, agreement.detail


@pytest.mark.filterwarnings('ignore:.*does not exist')
def test_sigmas_come_in_every_form():
    sigmas = build_loss({'type': 'OKSLoss', 'metainfo': COCO}).sigmas
    assert sigmas.shape == (17,)
    for metainfo in ({'from_file': COCO}, {'sigmas': sigmas.tolist()}, sigmas.tolist()):
        assert torch.equal(build_loss({'type': 'OKSLoss', 'metainfo': metainfo}).sigmas, sigmas)


@pytest.mark.parametrize('weight', [(5,), (5, 1)])
def test_objectness_weights(weight):
    """One output a prior."""
    for name, options in (('PoseBCELoss', {'reduction': 'sum'}), ('VariFocalLoss', {})):
        call = 'logits_sample_weights' if weight == (5,) and name == 'PoseBCELoss' else ''
        pair = pair_of(name, call, use_target_weight=True, **options)
        quality = torch.tensor([[0.0], [1.0], [0.7], [5e-5], [0.0]]).double()
        assert_call_agrees(pair, 6 * real(5, 1), quality, real(*weight).abs())


# Differences


def nan_in_keypoints(name):
    """Options, and a call whose second keypoint, or box, is NaN and has weight 0."""
    boxes = torch.tensor([[0.0, 0.0, 2.0, 2.0], [torch.nan] * 4])
    points = torch.tensor([[[0.0, 1.0], [torch.nan, torch.nan]]])
    return {
        'PoseBCELoss': ({'use_target_weight': True}, boxes[:, :1], torch.zeros(2, 1), torch.tensor([1.0, 0.0])),
        'PoseIoULoss': ({}, boxes, boxes.nan_to_num(0.0) + 1.0, torch.tensor([1.0, 0.0])),
        'OKSLoss': ({}, points, torch.zeros(1, 2, 2), torch.tensor([[1.0, 0.0]])),
    }[name]


@shows('NaN under a target weight of 0', 'PoseBCELoss', 'PoseIoULoss', 'OKSLoss')
def test_nan_without_weight(ours, host):
    options, *call = nan_in_keypoints(ours.__name__)
    assert host(**options)(*call).isnan()
    value, gradient = gradient_of(ours(**options), *call)
    assert value.isfinite()
    assert gradient.isfinite().all()


@shows('gradient of probabilities', 'PoseBCELoss')
def test_gradient_at_certainty(ours, host):
    certain, unlikely = torch.zeros(1, 1).double(), torch.full((1, 1), 1e-20).double()
    for p, derivative in ((certain, 0.0), (unlikely, -1e20)):
        assert gradient_of(ours(use_sigmoid=True), p, torch.ones(1, 1).double())[1].item() == pytest.approx(derivative)
        assert gradient_of(host(use_sigmoid=True), p, torch.ones(1, 1).double())[1].item() > -1.1e12


@shows('a probability outside [0, 1]', 'PoseBCELoss')
def test_no_probability(ours, host):
    call = torch.tensor([[1.5, 0.5]]), torch.ones(1, 2)
    with pytest.raises(RuntimeError):
        host(use_sigmoid=True)(*call)
    assert ours(use_sigmoid=True)(*call).isnan()


@shows('an element that is NaN contributes 0', 'VariFocalLoss')
def test_nan_is_swallowed(ours, host):
    call = torch.tensor([[torch.nan, 2.0]]), torch.tensor([[0.0, 0.5]])
    (value, gradient), (theirs, their_gradient) = (gradient_of(loss(), *call) for loss in (ours, host))
    assert value == pytest.approx(theirs.item())
    assert their_gradient[0, 0].isnan()
    assert gradient[0, 0] == 0
    assert gradient[0, 1] == pytest.approx(their_gradient[0, 1].item())


@shows("mode='log'", 'OKSLoss')
def test_logarithm_of_nothing(ours, host):
    far, visible = torch.tensor([[[60.0, 0.0]], [[1.0, 0.0]]]), torch.tensor([[1.0], [0.0]])
    call = far, torch.zeros(2, 1, 2), visible
    assert host(mode='log', reduction='none')(*call).isinf().all()
    assert ours(mode='log', reduction='none')(*call).tolist() == [1800.0, 0.0]
    value, gradient = gradient_of(ours(mode='log', reduction='none'), *call)
    assert gradient.flatten().tolist() == [60.0, 0.0, 0.0, 0.0]
    assert value.isfinite().all()
