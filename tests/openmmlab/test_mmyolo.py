"""mmyolo: inputs that the specs do not draw, and our differences from it."""

import pytest
import torch
from packages import host_class, is_installed, losses_of
from pairs import EXACT, assert_call_agrees, evaluate, evaluate_host, pair_of, real
from shown import shows

from lossreg.compare import compare
from lossreg.functional import yolo_iou
from lossreg.registry import build_loss

pytestmark = pytest.mark.openmmlab

if not is_installed('mmyolo'):
    pytest.skip('needs the real OpenMMLab packages: tests/openmmlab/install.sh VENV', allow_module_level=True)

COCO = 'configs/_base_/pose/coco.py'


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


def keypoints(n):
    target = 100 * real(n, 17, 2)
    corner = 50 * torch.rand(n, 2).double()
    boxes = torch.cat([corner, corner + 20 + 80 * torch.rand(n, 2).double()], 1)
    return target + 5 * real(n, 17, 2), target, torch.rand(n, 17).round().double(), boxes


@pytest.mark.filterwarnings('ignore:.*does not exist')
def test_oks_of_a_data_set():
    options = {'metainfo': COCO, 'loss_weight': 30.0}
    ours, host = build_loss({'type': 'OksLoss', **options}), host_class('mmyolo.OksLoss')(**options)
    ours.load_state_dict(host.state_dict())
    output, target, visible, boxes = keypoints(6)
    visible[2] = 0
    call = {'output': output.requires_grad_(), 'target': target, 'target_weights': visible, 'bboxes': boxes}
    agreement = compare(evaluate(ours.double(), call), evaluate_host(host, call), EXACT)
    assert agreement, agreement.detail


@pytest.mark.filterwarnings('ignore:.*does not exist')
def test_assigner_compares_all_with_all():
    ours = build_loss({'type': 'OksLoss', 'metainfo': COCO})
    host = host_class('mmyolo.OksLoss')(metainfo=COCO)
    output, _, _, _ = keypoints(5)
    _, target, visible, boxes = keypoints(3)
    call = output.unsqueeze(1), target.unsqueeze(0), visible.unsqueeze(0)
    similarity = ours.compute_oks(*call, bboxes=boxes.unsqueeze(0))
    assert similarity.shape == (5, 3)
    torch.testing.assert_close(similarity, host.compute_oks(*call, bboxes=boxes.unsqueeze(0)), rtol=1e-9, atol=1e-12)


def boxes(n):
    corner = 60 * torch.rand(n, 2).double()
    return torch.cat([corner, corner + 5 + 55 * torch.rand(n, 2).double()], 1)


@pytest.mark.parametrize('shape', [(6, 1), (6, 4), (6,)])
@pytest.mark.parametrize('mode', ['ciou', 'giou', 'siou'])
def test_weights_of_boxes(mode, shape):
    """YOLOv6 and YOLOv8 give (N, 1)."""
    pair = pair_of('YOLOIoULoss', 'boxes_and_iou', iou_mode=mode, bbox_format='xyxy')
    weight = torch.rand(shape).double()
    assert_call_agrees(pair, boxes(6), boxes(6), weight)
    assert_call_agrees(pair, boxes(6), boxes(6), weight, weight.sum().clamp(min=1))
    # mmyolo averages the weights before it checks for one above 0
    weight[1] = 0
    assert_call_agrees(pair, boxes(6), boxes(6), weight, 2, 'none')


ODD_BOXES = {
    'identical': [2, 3, 10, 7],
    'touching': [10, 3, 12, 7],
    'apart': [20, 30, 25, 31],
    'inside': [3, 4, 5, 6],
    'point': [4, 4, 4, 4],
    'inverted': [10, 7, 2, 3],
    'far': [1e6, 1e6, 2e6, 2e6],
}


@pytest.mark.parametrize('name', ODD_BOXES)
@pytest.mark.parametrize('mode', ['ciou', 'giou', 'siou'])
def test_odd_boxes(mode, name):
    pair = pair_of('YOLOIoULoss', 'boxes_and_iou', iou_mode=mode, bbox_format='xyxy')
    box, target = torch.tensor([[ODD_BOXES['identical']], [ODD_BOXES[name]]], dtype=torch.float64)
    if (mode, name) == ('siou', 'inverted'):  # mmyolo's gradient is NaN
        torch.testing.assert_close(pair.ours.loss(box, target), pair.host(box, target))
        return
    assert_call_agrees(pair, box.clone(), target)
    assert_call_agrees(pair, target.clone(), box)
    if (mode, name) != ('siou', 'point'):  # 0 / 0 in mmyolo
        assert_call_agrees(pair, target.clone(), target)


def test_plain_iou():
    """mmyolo's function supports it, but its class refuses it."""
    pred, target = boxes(8), boxes(8)
    target[0], target[1] = pred[0], pred[1] + 200
    theirs = losses_of('mmyolo').bbox_overlaps(pred, target, iou_mode='iou', bbox_format='xyxy')
    torch.testing.assert_close(yolo_iou(pred, target, 'iou', 'xyxy'), theirs, rtol=1e-12, atol=1e-12)


# Differences


@shows('NaN under a target weight of 0', 'OksLoss')
def test_nan_without_weight(ours, host):
    points = torch.tensor([[[0.0, 1.0], [torch.nan, torch.nan]]], requires_grad=True)
    call = points, torch.zeros(1, 2, 2), torch.tensor([[1.0, 0.0]])
    assert host()(*call).isnan().all()
    (gradient,) = torch.autograd.grad(ours()(*call).sum(), points)
    assert gradient[0, 1].tolist() == [0.0, 0.0]


@shows('NaN under a target weight of 0', 'YOLOIoULoss')
def test_nan_in_boxes_without_weight(ours, host):
    """The IoU of the other box, which has weight 0 too, is returned unchanged."""
    pred = torch.tensor([[4.0, 4.0, 2.0, 2.0], [torch.nan] * 4, [4.0, 4.0, 2.0, 2.0]], requires_grad=True)
    target, weight = torch.tensor([[4.0, 4.0, 2.0, 2.0]] * 3), torch.tensor([1.0, 0.0, 0.0])
    assert host()(pred, target, weight)[0].isnan()
    loss, iou = ours()(pred, target, weight)
    assert iou.tolist() == [1.0, 0.0, 1.0]
    (gradient,) = torch.autograd.grad(loss, pred)
    assert not gradient[1:].any()


@shows('no weight above 0', 'YOLOIoULoss')
def test_no_weight(ours, host):
    pred, target, weight = torch.ones(2, 4), torch.ones(2, 4), torch.zeros(2)
    assert host()(pred, target, weight).shape == ()
    loss, iou = ours()(pred, target, weight)
    assert loss == 0
    assert iou.tolist() == pytest.approx([1.0, 1.0])


@shows('an avg_factor of 0', 'YOLOIoULoss')
def test_avg_factor_of_zero(ours, host):
    pred, target = boxes(2), boxes(2)
    assert host()(pred, target, avg_factor=0)[0] > 1e5
    assert ours()(pred, target, avg_factor=0)[0] == 0


@shows("iou_mode='siou' of two boxes without width", 'YOLOIoULoss')
def test_no_width(ours, host):
    line = torch.tensor([[5.0, 5.0, 0.0, 8.0]], requires_grad=True), torch.tensor([[5.0, 9.0, 0.0, 8.0]])
    assert host(iou_mode='siou')(*line)[0].isnan()
    loss, _ = ours(iou_mode='siou')(*line)
    assert loss.isfinite()
    assert torch.autograd.grad(loss, line[0])[0].isfinite().all()


@shows("iou_mode='iou'", 'YOLOIoULoss')
def test_mode_of_the_plain_iou(ours, host):
    with pytest.raises(AssertionError):
        host(iou_mode='iou')
    box = torch.tensor([[1.0, 1.0, 2.0, 2.0]])
    assert ours(iou_mode='iou', return_iou=False)(
        box, box + torch.tensor([0.0, 0.0, 0.0, 2.0])
    ).item() == pytest.approx(0.5)
