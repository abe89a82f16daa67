"""mmpose's other losses: inputs that the specs do not draw, and our differences from it."""

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
    """As called by RTMO and YOLOX-Pose: COCO's sigmas, pixels, and instances without visible keypoints."""
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
    """One output per prior."""
    for name, options in (('PoseBCELoss', {'reduction': 'sum'}), ('VariFocalLoss', {})):
        call = 'logits_sample_weights' if weight == (5,) and name == 'PoseBCELoss' else ''
        pair = pair_of(name, call, use_target_weight=True, **options)
        quality = torch.tensor([[0.0], [1.0], [0.7], [5e-5], [0.0]]).double()
        assert_call_agrees(pair, 6 * real(5, 1), quality, real(*weight).abs())


def test_disparity_of_other_shapes():
    """Weights per sample, and heatmaps with one dimension."""
    heatmaps = [real(3, 4, 30).softmax(-1) for _ in range(2)]
    pair = pair_of('JSDiscretLoss', 'heatmaps')
    for weight in (real(3).abs(), real(3, 4).abs(), real(3, 4, 30).abs()):
        assert_call_agrees(pair, *heatmaps, weight)


def logits():
    """Two pairs of logits, a student's and a teacher's."""
    return [tuple(real(3, 4, bins) for bins in (9, 7)) for _ in range(2)]


def test_distillation_without_weights_is_mmposes():
    """The distiller's call, with weights 1."""
    student, teacher = logits()
    options = {'name': 'loss_logit', 'use_this': True, 'weight': 0.1}
    ours, host = build_loss({'type': 'KDLoss', **options}), host_class('mmpose.KDLoss')(**options)
    for x in student:
        x.requires_grad_()
    call = {'pred': student, 'pred_t': teacher, 'beta': 10.0, 'target_weight': torch.ones(3, 4).double()}
    agreement = compare(evaluate(ours, call), evaluate_host(host, call), EXACT)
    assert agreement, agreement.detail


@pytest.mark.parametrize(('student', 'teacher'), [(3, 5), (4, 4)])
def test_feature_distillation_has_mmposes_parameters(student, teacher):
    options = {'name': 'loss_fea', 'use_this': True, 'student_channels': student, 'teacher_channels': teacher}
    torch.manual_seed(1)
    host = host_class('mmpose.FeaLoss')(**options)
    torch.manual_seed(1)
    ours = build_loss({'type': 'FeaLoss', **options})
    assert list(ours.state_dict()) == list(host.state_dict())
    features = real(2, student, 4, 3), real(2, teacher, 4, 3)
    (value, gradient), (theirs, their_gradient) = (gradient_of(loss.double(), *features) for loss in (ours, host))
    torch.testing.assert_close(value, theirs, rtol=1e-12, atol=0)
    torch.testing.assert_close(gradient, their_gradient, rtol=1e-9, atol=1e-12)
    for mine, other in zip(ours.parameters(), host.parameters(), strict=True):
        torch.testing.assert_close(mine, other, rtol=0, atol=0)


def flows(**options):
    """Our RLE loss and mmpose's, with the same flow, far from the identity."""
    ours, host = build_loss({'type': 'RLELoss', **options}).double(), host_class('mmpose.RLELoss')(**options).double()
    for parameter in ours.parameters():
        parameter.data = 0.4 * real(*parameter.shape)
    host.load_state_dict(ours.state_dict())
    return ours, host


@pytest.mark.parametrize('residual', [True, False])
@pytest.mark.parametrize('q_distribution', ['laplace', 'gaussian'])
def test_likelihood_by_a_trained_flow(q_distribution, residual):
    ours, host = flows(q_distribution=q_distribution, residual=residual, use_target_weight=True)
    for weight in (torch.rand(5, 4, 1).round().double(), torch.rand(5, 4, 2).double()):
        pred, sigma, target = real(5, 4, 2).requires_grad_(), real(5, 4, 2).requires_grad_(), real(5, 4, 2)
        call = {'pred': pred, 'sigma': sigma, 'target': target, 'target_weight': weight}
        agreement = compare(evaluate(ours, call), evaluate_host(host, call), EXACT)
        assert agreement, agreement.detail
    ours(pred, sigma, target, weight).backward()
    host(pred, sigma, target, weight).backward()
    for mine, other in zip(ours.parameters(), host.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, other.grad, rtol=1e-9, atol=1e-12)


def test_flow_begins_as_mmposes():
    torch.manual_seed(1)
    host = host_class('mmpose.RLELoss')().state_dict()
    torch.manual_seed(1)
    ours = build_loss('RLELoss').state_dict()
    assert list(ours) == list(host)
    assert all(torch.equal(ours[name], host[name]) for name in host)


@pytest.mark.parametrize('length', [1, 3])
def test_tags_of_pictures_with_different_numbers_of_instances(length):
    """AssociativeEmbeddingHead gives a list. One image has no instance, another none that is visible."""
    pair = pair_of('PoseAssociativeEmbeddingLoss', 'keypoints', loss_weight=2.0, push_loss_factor=0.3)
    places = [torch.randint(0, 30, (n, 4, 2)) for n in (3, 0, 1, 2)]
    for keypoints in places:
        keypoints[..., 1] = torch.tensor([0, 1, 2, 0])[torch.randint(0, 4, keypoints.shape[:2])]
    places[3][..., 1] = 0
    assert_call_agrees(pair, real(4, 4 * length, 5, 6), places)
    assert_call_agrees(pair, real(1, 4 * length, 5, 6), places[0].unsqueeze(0))


def semi_supervised(distortion):
    """Poses 4 to 6 metres away, with a trajectory per joint or for all joints."""
    away = torch.tensor([0.0, 0.0, 5.0]).double()
    camera = torch.cat([torch.tensor([[1.1, 1.2, 0.5, 0.4]]).double().expand(6, 4), 0.1 * real(6, distortion)], 1)
    output = {
        'labeled_pose': real(4, 5, 3).requires_grad_(),
        'unlabeled_pose': real(6, 5, 3).requires_grad_(),
        'unlabeled_traj': (away + 0.2 * real(6, 1, 3)).requires_grad_(),
    }
    return output, {'unlabeled_target_2d': real(6, 5, 2), 'intrinsics': camera}


@pytest.mark.parametrize('distortion', [0, 5])
def test_semi_supervision_of_poses_in_front_of_the_camera(distortion):
    pair = pair_of('SemiSupervisionLoss', 'pinhole', joint_parents=[0, 0, 1, 2, 0])
    output, target = semi_supervised(distortion)
    for joints in (1, 5):
        trajectory = output['unlabeled_traj'].detach().expand(6, joints, 3).clone().requires_grad_()
        call = {'output': {**output, 'unlabeled_traj': trajectory}, 'target': target}
        # a copy, because mmpose adds a dimension to the given camera
        theirs = {**call, 'target': {name: x.clone() for name, x in target.items()}}
        names = pair.ours.call
        agreement = compare(evaluate(pair.ours.loss, call, names), evaluate_host(pair.host, theirs, names), EXACT)
        assert agreement, agreement.detail


WRAPPED = ({'type': 'BCELoss', 'use_target_weight': True}, {'type': 'JSDiscretLoss', 'use_target_weight': True})
OURS = {'BCELoss': 'lossreg.PoseBCELoss', 'AssociativeEmbeddingLoss': 'lossreg.PoseAssociativeEmbeddingLoss'}


def as_ours(config):
    return {**config, 'type': OURS.get(config['type'], f'lossreg.{config["type"]}')}


def test_wrapper_of_mmposes_losses():
    host = host_class('mmpose.MultipleLossWrapper')(list(WRAPPED))
    ours = build_loss({'type': 'MultipleLossWrapper', 'losses': [as_ours(loss) for loss in WRAPPED]})
    assert ours.num_losses == host.num_losses
    heatmaps = [real(3, 4, 30).softmax(-1) for _ in range(2)]
    outputs, targets = [real(3, 4), heatmaps[0]], [torch.rand(3, 4).double(), heatmaps[1]]
    weight = torch.rand(3, 4).round().double()
    losses, theirs = ours(outputs, targets, weight), host(outputs, targets, weight)
    assert isinstance(losses, list)
    torch.testing.assert_close(losses, theirs, rtol=1e-9, atol=1e-12)


def test_combination_of_mmposes_losses():
    losses = {'cls_loss': {'type': 'BCELoss'}, 'tag_loss': {'type': 'AssociativeEmbeddingLoss', 'loss_weight': 0.001}}
    host = host_class('mmpose.CombinedLoss')(losses)
    ours = build_loss({'type': 'CombinedLoss', 'losses': {name: as_ours(loss) for name, loss in losses.items()}})
    assert list(ours.keys()) == list(host.keys())
    tags, places = real(2, 4, 5, 6), torch.randint(0, 30, (2, 3, 4, 2))
    torch.testing.assert_close(ours.tag_loss(tags, places), host.tag_loss(tags, places))
    scores = real(3, 4), torch.rand(3, 4).double()
    torch.testing.assert_close(ours['cls_loss'](*scores), host['cls_loss'](*scores))
    for combined in (ours, host):
        with pytest.raises(NotImplementedError):
            combined(*scores)


# Differences


def nan_in_keypoints(name):
    """Options, and a call whose second keypoint or box is NaN with weight 0."""
    boxes = torch.tensor([[0.0, 0.0, 2.0, 2.0], [torch.nan] * 4])
    points = torch.tensor([[[0.0, 1.0], [torch.nan, torch.nan]]])
    return {
        'PoseBCELoss': ({'use_target_weight': True}, boxes[:, :1], torch.zeros(2, 1), torch.tensor([1.0, 0.0])),
        'PoseIoULoss': ({}, boxes, boxes.nan_to_num(0.0) + 1.0, torch.tensor([1.0, 0.0])),
        'OKSLoss': ({}, points, torch.zeros(1, 2, 2), torch.tensor([[1.0, 0.0]])),
        'BoneLoss': (
            {'joint_parents': [0, 0], 'use_target_weight': True},
            points,
            torch.ones(1, 2, 2),
            torch.zeros(1, 2),
        ),
        'JSDiscretLoss': ({}, points.abs(), torch.full((1, 2, 2), 0.5), torch.tensor([[1.0, 0.0]])),
    }[name]


IN_PLACE_OF = {'BCELoss': 'PoseBCELoss', 'IoULoss': 'PoseIoULoss'}
"""Ours by the names of hosts' classes, which the test is also run with, to see it fail."""


@shows('NaN under a target weight of 0', 'PoseBCELoss', 'PoseIoULoss', 'OKSLoss', 'JSDiscretLoss', 'BoneLoss')
def test_nan_without_weight(ours, host):
    options, *call = nan_in_keypoints(IN_PLACE_OF.get(ours.__name__, ours.__name__))
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


@shows('where a prediction is exactly 0', 'JSDiscretLoss')
def test_derivative_at_0(ours, host):
    call = torch.tensor([[[0.0, 1.0]]]), torch.tensor([[[0.5, 0.5]]]), torch.ones(1, 1)
    (value, gradient), (theirs, their_gradient) = (gradient_of(loss(), *call) for loss in (ours, host))
    assert value == pytest.approx(theirs.item())
    assert their_gradient[0, 0, 0].isnan()
    # only of q log(q / m), halved
    assert gradient[0, 0, 0] == pytest.approx(-0.5)
    assert gradient[0, 0, 1] == pytest.approx(their_gradient[0, 0, 1].item())


@shows('target_weight counts', 'KDLoss')
def test_weights_of_distillation(ours, host):
    student, teacher = logits()
    weight = torch.rand(3, 4).double()
    ones = torch.ones_like(weight)
    assert host('kd', True)(student, teacher, 2.0, weight) == host('kd', True)(student, teacher, 2.0, ones)
    each = [host('kd', True)(*([x[n : n + 1, k : k + 1] for x in pair] for pair in (student, teacher)), 2.0, None)
            for n in range(3) for k in range(4)]  # fmt: skip
    expected = (torch.stack(each).view(3, 4) * weight).mean()
    for given in (weight, weight.unsqueeze(-1)):
        torch.testing.assert_close(ours('kd', True)(student, teacher, 2.0, given), expected, rtol=1e-12, atol=0)


@shows('logits of two dimensions', 'KDLoss')
def test_distillation_of_one_keypoint(ours, host):
    student, teacher = ([x[:, 0] for x in pair] for pair in logits())
    with pytest.raises(UnboundLocalError):
        host('kd', True)(student, teacher, 2.0, None)
    expected = host('kd', True)(*([x.unsqueeze(1) for x in pair] for pair in (student, teacher)), 2.0, None)
    try:
        found = ours('kd', True)(student, teacher, 2.0, torch.ones(3).double())
    except UnboundLocalError:
        pytest.fail('raises as mmpose does')
    torch.testing.assert_close(found, expected)


@shows('a logit of sigma below', 'RLELoss')
def test_vanishing_sigma(ours, host):
    call = torch.zeros(1, 1, 2), torch.full((1, 1, 2), -1000.0), torch.zeros(1, 1, 2)
    loss = ours()
    theirs = host()
    theirs.load_state_dict(loss.state_dict())
    assert theirs(*call).isinf()
    # log sigma twice, for the flow and for the Laplace distribution, in two coordinates
    constant = loss(call[0], torch.zeros(1, 1, 2), call[2]) - 4 * torch.tensor(0.5).log()
    torch.testing.assert_close(loss(*call), constant - 4 * 1000.0)


@shows('while it warms up', 'SemiSupervisionLoss')
def test_warming_up(ours, host):
    output, target = semi_supervised(0)
    ours, host = (loss([0, 0, 1, 2, 0], warmup_iterations=2) for loss in (ours, host))
    for _ in range(2):
        assert host(output, target) == {}
        assert ours(output, target) == {'proj_loss': 0.0, 'bone_loss': 0.0}
    torch.testing.assert_close(ours(output, target), host(output, target))


@shows('only calls in training mode are counted', 'SemiSupervisionLoss')
def test_counting_iterations(ours, host):
    output, target = semi_supervised(0)
    ours, host = (loss([0, 0, 1, 2, 0], warmup_iterations=2) for loss in (ours, host))
    for _ in range(2):
        ours.eval()(output, target)
        host.eval()(output, target)
    assert (ours.num_iterations, host.num_iterations) == (0, 2)
    ours.train()(output, target)
    assert ours.state_dict() == {'num_iterations': 1}
    assert not host.state_dict()


@shows('a joint at depth 0', 'SemiSupervisionLoss')
def test_depth_of_zero(ours, host):
    output, target = semi_supervised(0)
    pose = torch.zeros(6, 5, 3).double()
    pose[0, 1, :2] = torch.tensor([0.5, -0.5])
    output |= {'unlabeled_pose': pose.requires_grad_(), 'unlabeled_traj': torch.zeros(6, 1, 3).double()}
    found, theirs = (loss([0, 0, 1, 2, 0])(output, target)['proj_loss'] for loss in (ours, host))
    assert theirs.isnan()
    assert found.isfinite()
    assert not torch.autograd.grad(found, pose)[0].any()


@shows('a negative place', 'PoseAssociativeEmbeddingLoss')
def test_negative_place(ours, host):
    tags, places = real(1, 1, 2, 3), torch.tensor([[[[-1, 1]], [[0, 1]]]])
    last = torch.tensor([[[[5, 1]], [[0, 1]]]])
    assert host()(tags, places) == host()(tags, last)
    with pytest.raises(IndexError, match='-1'):
        ours()(tags, places)
    # invisible ones do not matter
    places[0, 0, 0, 1] = 0
    torch.testing.assert_close(ours()(tags, places), host()(tags, places))


@shows('NaN gives NaN', 'RLELoss')
def test_likelihood_of_nan(ours, host):
    points, rest = torch.tensor([[[0.0, 1.0], [torch.nan, torch.nan]]]), [torch.zeros(1, 2, 2)] * 2
    for loss in (host(), host(use_target_weight=True)):
        with pytest.raises(ValueError, match='support'):
            loss(points, *rest, torch.tensor([[[1.0], [0.0]]]))
    assert ours()(points, *rest).isnan()
    value, gradient = gradient_of(ours(use_target_weight=True), points, *rest, torch.tensor([[[1.0], [0.0]]]))
    assert value.isfinite()
    assert gradient.isfinite().all()
