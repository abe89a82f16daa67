"""Our losses in mmrazor's distillers, from the configs in its wheel, with models that have the recorded layers."""

import pytest
import torch
from heads import assert_same_step, built, shipped_file, with_our_losses
from mmengine.config import Config
from packages import losses_of
from pairs import real
from torch import nn

pytestmark = pytest.mark.openmmlab

pytest.importorskip('mmrazor', reason='needs the real OpenMMLab packages: tests/openmmlab/install.sh VENV')


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


class Pyramid(nn.Conv2d):
    """A neck that returns one map at successively halved sizes."""

    def forward(self, maps):
        return [nn.functional.avg_pool2d(super(Pyramid, self).forward(maps), 2**level) for level in range(5)]


class Learner(nn.Module):
    """A model with all layers that the distillers of several tasks record.

    Its maps have no biases, whose gradient would be only rounding error in losses that normalise maps.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.backbone = nn.Conv2d(3, width, 3, bias=False)
        self.neck = Pyramid(width, 6, 1, bias=False)
        self.decode_head = nn.ModuleDict({'conv_seg': nn.Conv2d(width, 5, 1, bias=False)})
        self.head = nn.ModuleDict({'fc': nn.Linear(width, 1000), 'loss_module': nn.CrossEntropyLoss()})

    def forward(self, images, labels):
        maps = self.backbone(images)
        self.neck(maps), self.decode_head['conv_seg'](maps)
        return self.head['loss_module'](self.head['fc'](maps.mean((2, 3))), labels)


class Distilled(nn.Module):
    """A student, its teacher and a distiller, as in mmrazor's algorithms."""

    def __init__(self, distiller: nn.Module) -> None:
        super().__init__()
        self.student, self.teacher, self.distiller = Learner(4), Learner(8), distiller
        distiller.prepare_from_student(self.student)
        distiller.prepare_from_teacher(self.teacher)

    def loss(self, images, labels):
        with self.distiller.student_recorders, self.distiller.teacher_recorders:
            self.student(images, labels)
            with torch.no_grad():
                self.teacher(images, labels)
        return self.distiller.compute_distill_losses()


def shipped_distiller(path):
    """The distiller of a config, in which mmcls is today's mmpretrain."""
    text = shipped_file('mmrazor', f'distill/{path}').read_text().replace('mmcls::', 'mmpretrain::')
    return Config.fromstring(text, '.py').model.distiller


DISTILLERS = {
    'mmcls/kd/kd_logits_resnet34_resnet18_8xb32_in1k.py': 'KLDivergence',
    'mmcls/dist/dist_logits_resnet34_resnet18_8xb32_in1k.py': 'DISTLoss',
    'mmcls/dkd/dkd_resnet34_resnet18_8xb32_in1k.py': 'DKDLoss',
    'mmcls/wsld/wsld_logits_resnet34_resnet18_8xb32_in1k.py': 'WSLD',
    'mmdet/cwd/cwd_fpn_frcnn_r101_frcnn_r50_1x_coco.py': 'ChannelWiseDivergence',
    'mmdet/pkd/pkd_fpn_faster-rcnn_r101_faster-rcnn_r50_2x_coco.py': 'PKDLoss',
    'mmseg/cwd/cwd_logits_pspnet_r101-d8_pspnet_r18-d8_4xb2-80k_cityscapes-512x1024.py': 'ChannelWiseDivergence',
}


@pytest.mark.parametrize('config', DISTILLERS, ids=[path.split('/')[-1].partition('_r')[0] for path in DISTILLERS])
def test_configurable_distiller(config):
    """It looks up the parameters of ``forward`` before training, and gives all arguments by name."""
    losses_of('mmrazor')
    cfg = shipped_distiller(config)
    shipped, ours = (Distilled(built('mmrazor', c)).double() for c in (cfg, with_our_losses('mmrazor', cfg)))
    ours.load_state_dict(shipped.state_dict())
    called = assert_same_step(shipped, ours, real(4, 3, 34, 34), torch.tensor([3, 0, 700, 999]))
    assert called == {DISTILLERS[config]}


class Normalised(nn.Module):
    """A teacher with the layers that overhaul distillation records."""

    def __init__(self) -> None:
        super().__init__()
        stages = {f'layer{i}': nn.ModuleList([nn.ModuleDict({'bn1': nn.BatchNorm2d(4)})]) for i in (2, 3)}
        self.backbone = nn.ModuleDict({**stages, 'bn1': nn.BatchNorm2d(4)})


def test_overhaul_distiller_knows_its_loss_by_its_class():
    """With any other class than mmrazor's OFDLoss it sets no margins, without which the connectors cannot train."""
    losses_of('mmrazor')
    cfg = shipped_distiller('mmcls/ofd/ofd_backbone_resnet50_resnet18_8xb16_cifar10.py')
    for config, are_set in ((cfg, True), (with_our_losses('mmrazor', cfg), False)):
        distiller, teacher = built('mmrazor', config), Normalised()
        distiller.prepare_from_teacher(teacher)
        distiller.init_ofd_connectors(teacher)
        margins = [distiller.connectors[f'loss_{i}_tfeat'].margin for i in (1, 2, 3)]
        assert [margin is not None for margin in margins] == [are_set] * 3
