"""Our losses in the heads of the other packages, from the configs in their wheels."""

import pytest
import torch
from heads import assert_same_step, both_heads, built, shipped_config, with_our_losses
from mmengine.logging import MessageHub
from mmengine.structures import InstanceData, PixelData
from packages import losses_of
from pairs import in_double, real
from torch import nn

pytestmark = pytest.mark.openmmlab

pytest.importorskip('mmdet', reason='needs the real OpenMMLab packages: tests/openmmlab/install.sh VENV')


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


# mmseg

DEEPLAB = {
    'deeplabv3/deeplabv3_r50-d8_4xb2-40k_cityscapes-512x1024.py': {'SegCrossEntropyLoss'},
    'deeplabv3plus/deeplabv3plus_r50-d8_4xb2-40k_cityscapes-512x1024.py': {'SegCrossEntropyLoss'},
    'unet/unet-s5-d16_deeplabv3_4xb4-ce-1.0-dice-3.0-40k_chase-db1-128x128.py': {'SegCrossEntropyLoss', 'SegDiceLoss'},
}


def decode_losses(head, features, samples):
    """Calls a head as mmseg does, with a training configuration."""
    return head.loss(features, samples, None)


@pytest.mark.parametrize('config', DEEPLAB, ids=['deeplab', 'deeplab+', 'cross-entropy and dice'])
def test_deeplab_heads(config):
    """In double precision and without SyncBN, which needs a GPU; some of the pixels are ignored."""
    from mmseg.structures import SegDataSample

    head = shipped_config('mmseg', config).model.decode_head
    head.update(in_channels=8, channels=4, norm_cfg={'type': 'BN'}, dropout_ratio=0, in_index=3)
    if 'c1_in_channels' in head:
        head.update(c1_in_channels=4, c1_channels=4)
    labels = torch.randint(0, head.num_classes, (2, 1, 32, 48))
    labels[:, :, :8] = 255
    samples = [SegDataSample(gt_sem_seg=PixelData(data=label)) for label in labels]
    features = [real(2, 4, 16, 24), None, None, real(2, 8, 8, 12)]
    heads = [h.double() for h in both_heads('mmseg', head)]
    with in_double():
        assert assert_same_step(*heads, features, samples, step=decode_losses) == DEEPLAB[config]


# mmpretrain

CLASSIFIERS = {
    'resnet/resnet50_8xb32_in1k.py': {'PretrainCrossEntropyLoss'},
    'resnet/resnet50_8xb32-lbs_in1k.py': {'LabelSmoothLoss'},
    'resnet/resnet50_8xb32-mixup_in1k.py': {'PretrainCrossEntropyLoss'},
    'csra/resnet101-csra_1xb16_voc07-448px.py': {'PretrainCrossEntropyLoss'},
    'arcface/resnet50-arcface_8xb32_inshop.py': {'PretrainCrossEntropyLoss'},
}


@pytest.mark.parametrize('config', CLASSIFIERS, ids=['linear', 'smoothed', 'mixed up', 'several', 'arcface'])
def test_classifiers(config):
    """Labels, and scores of all classes, as from mixed images or multiple labels."""
    from mmpretrain.structures import DataSample

    head = shipped_config('mmpretrain', config).model.head
    head.update(in_channels=16, num_classes=10)
    soft = head.type in ('MultiLabelLinearClsHead', 'CSRAClsHead')
    given = [torch.rand(10).softmax(0) if soft else torch.tensor([label]) for label in (3, 0, 7, 9)]
    samples = [DataSample().set_gt_score(x) if soft else DataSample().set_gt_label(x) for x in given]
    features = torch.randn(4, 16, 2, 3) if head.type == 'CSRAClsHead' else torch.randn(4, 16)
    assert assert_same_step(*both_heads('mmpretrain', head), (features,), samples) == CLASSIFIERS[config]


# mmyolo

YOLO = {
    'yolov5/yolov5_s-v61_syncbn_fast_8xb16-300e_coco.py': {'CrossEntropyLoss', 'YOLOIoULoss'},
    'yolov8/yolov8_s_syncbn_fast_8xb16-500e_coco.py': {'CrossEntropyLoss', 'YOLOIoULoss', 'DistributionFocalLoss'},
    'ppyoloe/ppyoloe_s_fast_8xb32-300e_coco.py': {'VarifocalLoss', 'YOLOIoULoss', 'DistributionFocalLoss'},
    'rtmdet/rtmdet_s_syncbn_fast_8xb32-300e_coco.py': {'QualityFocalLoss', 'GIoULoss'},
}


@pytest.mark.parametrize('config', YOLO, ids=[path.partition('/')[0] for path in YOLO])
def test_yolo_heads(config):
    """In double precision, because gradients of normalised layers are sums that cancel in float32."""
    losses_of('mmyolo')
    cfg = shipped_config('mmyolo', config).model
    module = cfg.bbox_head.head_module
    module.update(widen_factor=1.0, in_channels=[32, 32, 32] if isinstance(module.in_channels, list) else 32)
    if 'norm_cfg' in module:
        module.norm_cfg.type = 'BN'
    cfg.bbox_head.update(train_cfg=cfg.get('train_cfg'), test_cfg=cfg.test_cfg)
    MessageHub.get_current_instance().update_info('epoch', 40)  # PPYOLOE uses another assigner in the first 30 epochs
    boxes = torch.tensor([[0, 1, 8, 8, 60, 70], [0, 5, 40, 30, 120, 100], [1, 5, 20, 20, 100, 90.0]])
    shape = {'batch_input_shape': (128, 128), 'img_shape': (128, 128), 'pad_shape': (128, 128)}
    features = tuple(real(2, 32, size, size) for size in (16, 8, 4))
    with in_double():
        heads = [head.double() for head in both_heads('mmyolo', cfg.bbox_head)]
        samples = {'bboxes_labels': boxes.double(), 'img_metas': [shape, shape]}
        assert assert_same_step(*heads, features, samples) == YOLO[config]


# mmrotate

ROTATED = {
    'rotated-fcos-le90_r50_fpn_1x_dota.py': {'FocalLoss', 'RotatedIoULoss', 'CrossEntropyLoss'},
    'rotated-fcos-hbox-le90_r50_fpn_1x_dota.py': {'FocalLoss', 'IoULoss', 'L1Loss', 'CrossEntropyLoss'},
    'rotated-fcos-hbox-le90_r50_fpn_csl-gaussian_1x_dota.py': {
        'FocalLoss', 'IoULoss', 'SmoothFocalLoss', 'CrossEntropyLoss',
    },
}  # fmt: skip


@pytest.mark.parametrize('config', ROTATED, ids=['rotated', 'angle', 'angle as classes'])
def test_rotated_heads(config):
    """In double precision: mmcv's rotated IoU adds constants to denominators that matter in float32."""
    losses_of('mmrotate')
    from mmdet.structures import DetDataSample
    from mmrotate.structures import RotatedBoxes

    head = shipped_config('mmrotate', f'rotated_fcos/{config}').model.bbox_head
    head.update(in_channels=32, feat_channels=32)
    boxes = RotatedBoxes(torch.tensor([[34.0, 39.0, 52.0, 40.0, 0.3], [80.0, 65.0, 60.0, 30.0, -0.7]]).double())
    sample = DetDataSample(metainfo={'img_shape': (128, 128), 'pad_shape': (128, 128)})
    sample.gt_instances = InstanceData(bboxes=boxes, labels=torch.tensor([1, 5]))
    features = tuple(real(2, 32, size, size) for size in (16, 8, 4, 2, 1))
    with in_double():
        heads = [head.double() for head in both_heads('mmrotate', head)]
        for built_head in heads:
            nn.init.constant_(built_head.conv_reg.bias, 3.0)  # boxes that cross the true ones, not points inside
        assert assert_same_step(*heads, features, [sample, sample.clone()]) == ROTATED[config]


# mmaction


def action_losses(head, features, samples):
    """Calls a head as mmaction does, with the number of segments."""
    return head.loss(features, samples, num_segs=3)


def test_action_head():
    """mmaction's configs leave the loss to the head's default, so ours must be inserted."""
    losses_of('mmaction')
    from mmaction.structures import ActionDataSample

    path = 'recognition/tsn/tsn_imagenet-pretrained-r50_8xb32-1x1x3-100e_kinetics400-rgb.py'
    head = shipped_config('mmaction', path).model.cls_head
    head.update(in_channels=16, num_classes=10, dropout_ratio=0, loss_cls={'type': 'CrossEntropyLoss'})
    samples = [ActionDataSample().set_gt_label(label) for label in (3, 7)]
    heads = both_heads('mmaction', head)
    called = assert_same_step(*heads, torch.randn(6, 16, 4, 4), samples, step=action_losses)
    assert called == {'ActionCrossEntropyLoss'}


# mmdet3d


def test_center_head():
    losses_of('mmdet3d')
    from mmdet3d.structures import Det3DDataSample, LiDARInstance3DBoxes

    path = 'centerpoint/centerpoint_pillar02_second_secfpn_head-circlenms_8xb4-cyclic-20e_nus-3d.py'
    cfg = shipped_config('mmdet3d', path).model
    head, train_cfg = cfg.pts_bbox_head, cfg.train_cfg.pts
    train_cfg.update(grid_size=[128, 128, 1], point_cloud_range=[-12.8, -12.8, -5.0, 12.8, 12.8, 3.0])
    head.update(in_channels=8, share_conv_channel=8, train_cfg=train_cfg, test_cfg=cfg.test_cfg.pts)
    numbers = torch.rand(10, 9) * torch.tensor([20.0, 20, 1, 3, 2, 2, 3, 1, 1])
    boxes = LiDARInstance3DBoxes(numbers - torch.tensor([10.0, 10, 1, 0, 0, 0, 1.5, 0, 0]), box_dim=9)
    sample = Det3DDataSample(gt_instances_3d=InstanceData(bboxes_3d=boxes, labels_3d=torch.arange(10)))
    features = [real(2, 8, 32, 32)]
    with in_double():
        heads = [head.double() for head in both_heads('mmdet3d', head)]
        called = assert_same_step(*heads, features, [sample, sample.clone()])
    assert called == {'GaussianFocalLoss', 'L1Loss'}


def pillars():
    """PointPillars' head, as shipped except for its channels."""
    cfg = shipped_config('mmdet3d', 'pointpillars/pointpillars_hv_secfpn_8xb6-160e_kitti-3d-3class.py').model
    cfg.bbox_head.update(in_channels=8, feat_channels=8, train_cfg=cfg.train_cfg)
    return cfg.bbox_head


def test_heads_of_3d_anchors_know_their_loss_by_its_name():
    """For any name but mmdet's, they need a sampler, which no config has, and would count every anchor."""
    losses_of('mmdet3d')
    assert not built('mmdet3d', pillars()).sampling
    with pytest.raises(AttributeError, match='sampler'):
        built('mmdet3d', with_our_losses('mmdet3d', pillars()))


def test_head_of_3d_anchors():
    """With the focal loss that it checks for, and ours for boxes and directions."""
    losses_of('mmdet3d')
    from mmdet3d.structures import Det3DDataSample, LiDARInstance3DBoxes

    head = pillars()
    heads = [built('mmdet3d', cfg) for cfg in (head, {**with_our_losses('mmdet3d', head), 'loss_cls': head.loss_cls})]
    heads[1].load_state_dict(heads[0].state_dict())
    boxes = torch.tensor([[10.0, 2.0, -1.0, 0.8, 0.6, 1.7, 0.3], [30.0, -9.0, -1.5, 3.9, 1.6, 1.5, 1.2]])
    truth = InstanceData(bboxes_3d=LiDARInstance3DBoxes(boxes), labels_3d=torch.tensor([0, 2]))
    sample = Det3DDataSample(metainfo={'box_type_3d': LiDARInstance3DBoxes}, gt_instances_3d=truth)
    features = [torch.randn(2, 8, 124, 108)]
    called = assert_same_step(*heads, features, [sample, sample.clone()], kept='mmdet.FocalLoss')
    assert called == {'SmoothL1Loss', 'CrossEntropyLoss'}
