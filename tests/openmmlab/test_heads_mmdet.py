"""Our losses in mmdet's heads, from the configs in its wheel. Further heads are in ``test_mmdet.py``."""

from contextlib import nullcontext
from unittest import mock

import pytest
import torch
from heads import assert_same_step, both_heads, built, shipped_config, with_our_losses
from mmengine.registry import DefaultScope
from mmengine.structures import InstanceData
from pairs import in_double, real
from torch import nn

pytestmark = pytest.mark.openmmlab

pytest.importorskip('mmdet', reason='needs the real OpenMMLab packages: tests/openmmlab/install.sh VENV')

SIZE = 128
BOXES = torch.tensor([[8.0, 8.0, 60.0, 70.0], [40.0, 30.0, 120.0, 100.0]])


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


def samples():
    """Two images with the same boxes, of classes 1 and 5, and no ignored boxes."""
    from mmdet.structures import DetDataSample

    shape = (SIZE, SIZE)
    sample = DetDataSample(metainfo={'img_shape': shape, 'pad_shape': shape, 'batch_input_shape': shape})
    sample.gt_instances = InstanceData(bboxes=BOXES, labels=torch.tensor([1, 5]))
    sample.gt_instances_ignore = InstanceData(bboxes=BOXES[:0])
    return [sample, sample.clone()]


DENSE = {
    'retinanet/retinanet_r50_fpn_1x_coco.py': ({'FocalLoss', 'L1Loss'}, nullcontext),
    'ghm/retinanet_r50_fpn_ghm-1x_coco.py': ({'GHMC', 'GHMR'}, nullcontext),
    'fcos/fcos_r50-caffe_fpn_gn-head_1x_coco.py': ({'FocalLoss', 'IoULoss', 'CrossEntropyLoss'}, in_double),
    'atss/atss_r50_fpn_1x_coco.py': ({'FocalLoss', 'GIoULoss', 'CrossEntropyLoss'}, in_double),
    'gfl/gfl_r50_fpn_1x_coco.py': ({'QualityFocalLoss', 'GIoULoss', 'DistributionFocalLoss'}, nullcontext),
    'vfnet/vfnet_r50_fpn_1x_coco.py': ({'VarifocalLoss', 'GIoULoss'}, in_double),
}


class Undeformed(nn.Conv2d):
    """Replaces a deformable convolution, whose operator mmcv-lite lacks; it accepts the offsets."""

    def forward(self, x, offset):
        return super().forward(x)


@pytest.mark.parametrize('config', DENSE, ids=[path.partition('/')[0] for path in DENSE])
def test_dense_heads(config):
    """The average factors and empty levels come from a real assignment.

    In double precision, because gradients of normalised layers are sums that cancel in float32. Some heads, and mmdet's
    cross-entropy, would change the dtype of boxes or labels; the boxes of the others stay in float32.
    """
    used, precision = DENSE[config]
    cfg = shipped_config('mmdet', config).model
    cfg.bbox_head.update(in_channels=32, feat_channels=32, train_cfg=cfg.get('train_cfg'), test_cfg=cfg.test_cfg)
    with mock.patch('mmdet.models.dense_heads.vfnet_head.DeformConv2d', Undeformed):
        heads = [head.double() for head in both_heads('mmdet', cfg.bbox_head)]
    features = tuple(real(2, 32, size, size) for size in (16, 8, 4, 2, 1))
    with precision():
        assert assert_same_step(*heads, features, samples()) == used


def test_rpn_head():
    """The RPN has one class, objects, and samples its anchors."""
    cfg = shipped_config('mmdet', 'faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py').model
    cfg.rpn_head.update(in_channels=32, feat_channels=32, train_cfg=cfg.train_cfg.rpn, test_cfg=cfg.test_cfg.rpn)
    objects = samples()
    for sample in objects:
        sample.gt_instances.labels.zero_()
    features = tuple(torch.randn(2, 32, size, size) for size in (32, 16, 8, 4, 2))
    assert assert_same_step(*both_heads('mmdet', cfg.rpn_head), features, objects) == {'CrossEntropyLoss', 'L1Loss'}


def test_detr_head():
    """It turns the class weight, a single number in the config, into a tensor."""
    cfg = shipped_config('mmdet', 'detr/detr_r50_8xb2-150e_coco.py').model
    cfg.bbox_head.update(embed_dims=16, train_cfg=cfg.train_cfg, test_cfg=cfg.test_cfg)
    called = assert_same_step(*both_heads('mmdet', cfg.bbox_head), torch.randn(6, 2, 20, 16), samples())
    assert called == {'CrossEntropyLoss', 'L1Loss', 'GIoULoss'}


KEYPOINT = {
    'centernet/centernet_r18_8xb16-crop512-140e_coco.py': {'GaussianFocalLoss', 'L1Loss'},
    'cornernet/cornernet_hourglass104_8xb6-210e-mstest_coco.py': {
        'GaussianFocalLoss', 'AssociativeEmbeddingLoss', 'SmoothL1Loss',
    },
}  # fmt: skip


@pytest.mark.parametrize('config', KEYPOINT, ids=[path.partition('/')[0] for path in KEYPOINT])
def test_heads_of_points(config):
    cfg = shipped_config('mmdet', config).model
    head = cfg.bbox_head
    channels = 'in_channels' if 'in_channels' in head else 'in_channel'
    head.update({'train_cfg': cfg.train_cfg, 'test_cfg': cfg.test_cfg, channels: 16})
    heads = [head.double() for head in both_heads('mmdet', head)]
    for parameter in (p for h in heads for name, p in h.named_parameters() if '_emb.' in name):
        parameter.data.mul_(0.1)  # so that two embeddings are close enough to repel each other
    features = tuple(real(2, 16, 32, 32) for _ in range(head.get('num_feat_levels', 1)))
    assert assert_same_step(*heads, features, samples()) == KEYPOINT[config]


ROI = {
    'faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py': {'CrossEntropyLoss', 'L1Loss'},
    'faster_rcnn/faster-rcnn_r50_fpn_giou_1x_coco.py': {'CrossEntropyLoss', 'GIoULoss'},
    'libra_rcnn/libra-faster-rcnn_r50_fpn_1x_coco.py': {'CrossEntropyLoss', 'BalancedL1Loss'},
}


def sampled(train_cfg):
    """Random boxes and the true ones, assigned and sampled as in the config."""
    from mmdet.registry import TASK_UTILS

    with DefaultScope.overwrite_default_scope('mmdet'):
        sampler = {'num': 24, 'pos_fraction': 0.25, 'type': 'RandomSampler', 'add_gt_as_proposals': True}
        assigner, sampler = (TASK_UTILS.build(cfg) for cfg in (train_cfg.assigner, sampler))
    truth = InstanceData(bboxes=BOXES, labels=torch.tensor([1, 5]))
    corners = torch.rand(40, 2) * 64
    proposals = InstanceData(priors=torch.cat([corners, corners + 8 + torch.rand(40, 2) * 48], dim=1))
    return sampler.sample(assigner.assign(proposals, truth), proposals, truth)


def box_losses(head, features, results, train_cfg):
    """Calls a box head as RoI heads do, with given features per box."""
    from mmdet.structures.bbox import bbox2roi

    rois = bbox2roi([result.priors for result in results])
    return head.loss_and_target(*head(features), rois, results, train_cfg)['loss_bbox']


@pytest.mark.parametrize(('config', 'used'), ROI.items(), ids=['faster', 'giou', 'libra'])
def test_box_heads(config, used):
    cfg = shipped_config('mmdet', config).model
    head, train_cfg = cfg.roi_head.bbox_head, cfg.train_cfg.rcnn
    head.update(in_channels=4, fc_out_channels=16, roi_feat_size=2, num_classes=6)
    results = [sampled(train_cfg) for _ in range(2)]
    features = torch.randn(sum(len(result.priors) for result in results), 4, 2, 2)
    heads = both_heads('mmdet', head)
    assert assert_same_step(*heads, features, results, train_cfg, step=box_losses) == used


def mask_losses(head, features, results, truth, train_cfg):
    """Calls a mask head as RoI heads do, with given features per object."""
    return head.loss_and_target(head(features), results, truth, train_cfg)['loss_mask']


def test_mask_head():
    """The targets are polygons, because mmcv-lite cannot crop bitmaps."""
    from mmdet.structures.mask import PolygonMasks

    cfg = shipped_config('mmdet', 'mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py').model
    head, train_cfg = cfg.roi_head.mask_head, cfg.train_cfg.rcnn
    head.update(in_channels=4, conv_out_channels=4, num_classes=6)
    heads = [head.double() for head in both_heads('mmdet', head)]
    polygons = [[box[[0, 1, 2, 1, 1, 3]].numpy()] for box in BOXES]
    truth = [InstanceData(masks=PolygonMasks(polygons, SIZE, SIZE))] * 2
    results = [sampled(train_cfg) for _ in truth]
    features = real(sum(len(result.pos_priors) for result in results), 4, 14, 14)
    with in_double():
        called = assert_same_step(*heads, features, results, truth, train_cfg, step=mask_losses)
    assert called == {'CrossEntropyLoss'}


def test_box_head_of_long_tailed_classes():
    """Scores have channels for objectness; losses and accuracies have the names that Seesaw gives them."""
    cfg = shipped_config('mmdet', 'seesaw_loss/mask-rcnn_r50_fpn_seesaw-loss_random-ms-2x_lvis-v1.py').model
    head = cfg.roi_head.bbox_head
    head.update(num_classes=5)
    head.loss_cls.update(num_classes=5)
    shipped, ours = both_heads('mmdet', head)
    assert type(ours.loss_cls).__module__.startswith('lossreg.')
    assert ours.fc_cls.out_features == 7
    rois = torch.rand(12, 5)
    labels, weights = torch.tensor([0, 5, 1, 5, 4, 4, 5, 2, 3, 5, 5, 0]), torch.ones(12)
    scores, boxes = torch.randn(12, 7), torch.randn(12, 20)
    for _ in range(3):
        got, want = (
            h.loss(scores, boxes, rois, labels, weights, torch.zeros(12, 4), torch.ones(12, 4)) for h in (ours, shipped)
        )
        assert got.keys() == want.keys()
        for name, value in want.items():
            torch.testing.assert_close(got[name], value.squeeze(), rtol=1e-6, atol=1e-6)


def test_tracking_head():
    """QDTrack's head gives integer targets, and weights whose sum is the average factor."""
    cfg = shipped_config('mmdet', 'qdtrack/qdtrack_faster-rcnn_r50_fpn_8xb2-4e_mot17halftrain_test-mot17halfval.py')
    head = cfg.model.track_head.embed_head
    shipped, ours = both_heads('mmdet', head)
    targets = (torch.rand(4, 6) > 0.7).int()
    weights = (targets.sum(1) > 0).float()
    for loss, call, options in (
        ('loss_track', (real(4, 6), targets, weights), {'avg_factor': weights.sum()}),
        ('loss_track_aux', (real(4, 6).sigmoid(), targets), {}),
    ):
        want = getattr(shipped, loss)(*(x.clone() for x in call), **options)
        torch.testing.assert_close(getattr(ours, loss)(*call, **options), want, rtol=1e-6, atol=0)


# Heads that check the class


def test_dynamic_roi_head_takes_no_loss_but_its_own():
    """It asserts that its loss is an instance of mmdet's SmoothL1Loss, and changes its beta in training."""
    cfg = shipped_config('mmdet', 'dynamic_rcnn/dynamic-rcnn_r50_fpn_1x_coco.py').model
    cfg.roi_head.update(train_cfg=cfg.train_cfg.rcnn, test_cfg=cfg.test_cfg.rcnn)
    assert built('mmdet', cfg.roi_head).bbox_head.loss_bbox.beta == 1.0
    with pytest.raises(AssertionError):
        built('mmdet', with_our_losses('mmdet', cfg.roi_head))


def test_detr_heads_know_quality_focal_loss_by_its_class():
    """They give IoUs only to mmdet's class; ours refuses plain labels."""
    cfg = shipped_config('mmdet', 'detr/detr_r50_8xb2-150e_coco.py').model
    cfg.bbox_head.update(embed_dims=16, train_cfg=cfg.train_cfg, test_cfg=cfg.test_cfg)
    cfg.bbox_head.loss_cls = {'type': 'QualityFocalLoss', 'use_sigmoid': True}
    shipped, ours = both_heads('mmdet', cfg.bbox_head)
    queries = torch.randn(6, 2, 20, 16)
    assert shipped.loss(queries, samples())['loss_cls'] > 0
    with pytest.raises(ValueError, match='target has shape'):
        ours.loss(queries, samples())
