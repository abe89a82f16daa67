"""mmengine's runner trains models of mmpose and mmdet with our losses in their configs, on synthetic data."""

import copy
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from heads import losses_called, shipped_config, with_our_losses
from mmengine.registry import DefaultScope
from mmengine.runner import Runner
from mmengine.structures import InstanceData
from pairs import in_double
from torch.utils.data import Dataset

pytestmark = pytest.mark.openmmlab

for _package in ('mmdet', 'mmpose'):
    pytest.importorskip(_package, reason='needs the real OpenMMLab packages: tests/openmmlab/install.sh VENV')

IMAGES = 8


class RandomPoses(Dataset):
    """Noise with random keypoints, some of them invisible, encoded by the model's codec."""

    def __init__(self, codec):
        from mmpose.registry import KEYPOINT_CODECS

        self.codec = KEYPOINT_CODECS.build(codec)

    def __len__(self):
        return IMAGES

    def __getitem__(self, index):
        from mmpose.structures import PoseDataSample

        drawn = np.random.default_rng(index)
        width, height = self.codec.input_size
        keypoints = (drawn.random((1, 17, 2)) * self.codec.input_size).astype(np.float32)
        labels = self.codec.encode(keypoints, (drawn.random((1, 17)) > 0.3).astype(np.float32))
        sample = PoseDataSample(gt_instance_labels=InstanceData(**{k: torch.from_numpy(x) for k, x in labels.items()}))
        image = drawn.integers(0, 256, (3, height, width), np.uint8)
        return {'inputs': torch.from_numpy(image), 'data_samples': sample}


class RandomBoxes(Dataset):
    """Noise with two random boxes."""

    def __len__(self):
        return IMAGES

    def __getitem__(self, index):
        from mmdet.structures import DetDataSample

        drawn = np.random.default_rng(index)
        corners = drawn.random((2, 2)) * 64
        boxes = np.concatenate([corners, corners + 16 + drawn.random((2, 2)) * 48], axis=1).astype(np.float32)
        sample = DetDataSample(metainfo={'img_shape': (128, 128)})
        sample.gt_instances = InstanceData(bboxes=torch.from_numpy(boxes), labels=torch.tensor([0, 2]))
        image = drawn.integers(0, 256, (3, 128, 128), np.uint8)
        return {'inputs': torch.from_numpy(image), 'data_samples': sample}


def tiny_pose_model():
    """RTMPose with few channels, and its codec."""
    cfg = shipped_config('mmpose', 'body_2d_keypoint/rtmpose/coco/rtmpose-s_8xb256-420e_coco-256x192.py')
    cfg.model.backbone.update(deepen_factor=0.1, widen_factor=0.03125, norm_cfg={'type': 'BN'}, init_cfg=None)
    cfg.model.head.update(in_channels=32)
    return cfg.model, {'codec': cfg.codec}


def tiny_detector():
    """FCOS with only 32 channels, the number of groups in its norms."""
    model = shipped_config('mmdet', 'fcos/fcos_r50-caffe_fpn_gn-head_1x_coco.py').model
    model.backbone.update(depth=18, base_channels=4, frozen_stages=-1, norm_cfg={'type': 'BN'}, init_cfg=None)
    model.neck.update(in_channels=[4, 8, 16, 32], out_channels=32)
    model.bbox_head.update(in_channels=32, feat_channels=32, num_classes=3)
    return model, {}


def trained(scope: str, model, dataset: type, options, folder: Path):
    """The parameters after an epoch, and the losses logged in it, by name."""
    from mmengine.registry import DATASETS

    DATASETS.register_module(module=dataset, force=True)
    # restore the default scope, which the runner changes
    with in_double(), DefaultScope.overwrite_default_scope(scope):
        runner = Runner(
            model=copy.deepcopy(model),
            work_dir=str(folder),
            train_dataloader={
                'batch_size': 2,
                'num_workers': 0,
                'sampler': {'type': 'DefaultSampler', 'shuffle': True},
                'dataset': {'type': f'mmengine.{dataset.__name__}', **options},
            },
            train_cfg={'by_epoch': True, 'max_epochs': 1},
            optim_wrapper={'optimizer': {'type': 'SGD', 'lr': 0.01, 'momentum': 0.9}},
            default_scope=scope,
            default_hooks={'logger': {'type': 'LoggerHook', 'interval': 1}},
            randomness={'seed': 0},
            experiment_name=f'{scope}_{folder.name}',  # it names the log folder, with a resolution of a second
            log_level='WARNING',
        )
        runner.train()
    log = next(folder.glob('*/vis_data/scalars.json')).read_text().splitlines()
    return runner.model.state_dict(), [json.loads(line) for line in log]


@pytest.mark.parametrize(
    ('scope', 'tiny', 'dataset', 'used'),
    [
        ('mmpose', tiny_pose_model, RandomPoses, {'lossreg.KLDiscretLoss'}),
        ('mmdet', tiny_detector, RandomBoxes, {'lossreg.FocalLoss', 'lossreg.IoULoss', 'lossreg.CrossEntropyLoss'}),
    ],
    ids=['mmpose', 'mmdet'],
)
def test_same_training(scope, tiny, dataset, used, tmp_path):
    """The same seed gives the same parameters with the host's losses and with ours.

    In double precision: in float32, rounding changes small parameters by 1e-6 in each step.
    """
    model, options = tiny()
    theirs, their_log = trained(scope, model, dataset, options, tmp_path / 'theirs')
    with losses_called() as called:
        ours, our_log = trained(scope, with_our_losses(scope, model), dataset, options, tmp_path / 'ours')
    assert called == used
    assert len(our_log) == IMAGES // 2
    for row, their_row in zip(our_log, their_log, strict=True):
        losses = {name: value for name, value in their_row.items() if 'loss' in name}
        assert all(np.isfinite(value) and value > 0 for value in losses.values())
        assert {name: row[name] for name in losses} == pytest.approx(losses, rel=1e-6)
    assert ours.keys() == theirs.keys()
    for name, value in theirs.items():
        # a bias before a norm has no gradient, and changes only by rounding
        atol = max(1e-6 * value.abs().max().item(), 1e-12)
        torch.testing.assert_close(
            ours[name], value, rtol=1e-6, atol=atol, msg=lambda text, name=name: f'{name}: {text}'
        )
