"""mmyolo: calls that the specs' inputs do not draw, and our differences from it."""

import pytest
import torch
from packages import host_class, is_installed
from pairs import EXACT, evaluate, evaluate_host, real
from shown import shows

from lossreg.compare import compare
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


# Differences


@shows('NaN under a target weight of 0', 'OksLoss')
def test_nan_without_weight(ours, host):
    points = torch.tensor([[[0.0, 1.0], [torch.nan, torch.nan]]], requires_grad=True)
    call = points, torch.zeros(1, 2, 2), torch.tensor([[1.0, 0.0]])
    assert host()(*call).isnan().all()
    (gradient,) = torch.autograd.grad(ours()(*call).sum(), points)
    assert gradient[0, 1].tolist() == [0.0, 0.0]
