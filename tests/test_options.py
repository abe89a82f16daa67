"""Options of losses: what a docstring says of an option is held to, and what contradicts itself is refused."""

import inspect
import re

import pytest
import torch
from failures import Failures
from units import LOSSES, REQUESTS

from lossreg.errors import ConfigError
from lossreg.registry import build_loss
from lossreg.spec import spec_of

LIMITS = {
    '> 0': ([0.0, -1.0], [1e-3]),
    '>= 0': ([-1e-3], [0.0]),
    'in [0, 1]': ([-1e-3, 1.001], [0.0, 1.0]),
}
"""By what a docstring says: numbers that are refused, and numbers that are taken."""


def limits_of(cls):
    """What the docstring of a loss says of each option that has a limit."""
    arguments = re.search(r'\nArgs:\n(.*?)(\n\n|\Z)', inspect.getdoc(cls), re.DOTALL)
    entries = (
        re.findall(r'^    (\w+): (.*?)(?=^    \w|\Z)', arguments[1] + '\n', re.DOTALL | re.MULTILINE)
        if arguments
        else ()
    )
    for option, text in entries:
        limit = re.search(r'(> 0|>= 0|in \[0, 1\])[.;]', ' '.join(text.split()))
        if limit:
            yield option, limit[1]


LIMITED = {name: limits for name, cls in LOSSES.items() if (limits := dict(limits_of(cls)))}


def test_limits_are_read():
    assert len(LIMITED) > 50
    assert LIMITED['WingLoss'] == {'omega': '> 0', 'epsilon': '> 0'}
    assert LIMITED['FocalLoss'] == {'gamma': '>= 0'}


@pytest.mark.parametrize('name', LIMITED)
def test_options_keep_their_limits(name):
    with Failures() as failures:
        for option, limit in LIMITED[name].items():
            refused, taken = LIMITS[limit]
            for value in refused:
                with failures.of(f'{option}={value}'), pytest.raises(ConfigError, match=rf'\}}: .*\b{option}\b'):
                    build_loss({**REQUESTS[name][0].config, option: value})
            for value in taken:
                with failures.of(f'{option}={value}'):
                    build_loss({**REQUESTS[name][0].config, option: value})


@pytest.mark.parametrize(
    'name', [name for name, cls in LOSSES.items() if 'reduction' in inspect.signature(cls).parameters]
)
def test_an_unknown_reduction_is_refused(name):
    with pytest.raises(ConfigError, match=r'\}: .*\breduction\b'):
        build_loss({**REQUESTS[name][0].config, 'reduction': 'average'})


def defaults_of(function):
    return {p.name: p.default for p in inspect.signature(function).parameters.values() if p.default is not p.empty}


OTHER_DEFAULTS = {
    ('DiceLoss', 'activate'): 'the function takes probabilities, the class logits',
    ('PoseIoULoss', 'eps'): "the function is mmdet's, the class mmpose's",
    ('SiLogLoss', 'eps'): 'so they differ in mmseg',
}


def test_functions_have_the_defaults_of_their_classes():
    """But for None, which a class fills in or leaves to the function."""
    found = {}
    for name, cls in LOSSES.items():
        for function in spec_of(cls).functions:
            ours, theirs = defaults_of(function), defaults_of(cls)
            for option in ours.keys() & theirs.keys():
                found[name, option] = ours[option] == theirs[option] or None in (ours[option], theirs[option])
    assert len(found) > 250
    assert {case for case, equal in found.items() if not equal} == OTHER_DEFAULTS.keys()


USUAL_DEFAULTS = {'loss_weight': 1.0, 'reduction': 'mean'}
UNUSUAL_DEFAULTS = {
    'AngleWiseRKD': 50.0, 'DistanceWiseRKD': 25.0, 'DiscShiftLoss': 0.1, 'KLDivergence': 'batchmean',
    'DKDLoss': 'batchmean', 'L1Penalty': 'sum', 'L2Penalty': 'sum', 'MaskedBalancedBCELoss': 'none',
    'MaskedBalancedBCEWithLogitsLoss': 'none', 'MultiBinLoss': 'none',
}  # fmt: skip


def test_losses_weigh_1_and_average_unless_their_host_does_not():
    found = {}
    for name, cls in LOSSES.items():
        defaults = defaults_of(cls)
        for option, usual in USUAL_DEFAULTS.items():
            if defaults.get(option, usual) != usual:
                found[name] = defaults[option]
    assert found == UNUSUAL_DEFAULTS


REFUSED = [
    ({'type': 'ActivationLoss', 'norm_type': 'l2'}, "'abs' or 'norm', got 'l2'"),
    ({'type': 'BinaryLogisticRegressionLoss', 'ratio_range': (1, 21)}, 'two numbers above 1'),
    ({'type': 'BinaryLogisticRegressionLoss', 'ratio_range': (3, 2)}, 'the lower one first'),
    (
        {
            'type': 'CompositeLoss',
            'losses': {
                f'of_{classes}': {
                    'loss': {'type': 'CrossEntropyLoss', 'class_weight': [1.0] * classes},
                    'inputs': ['logits', 'label'],
                }
                for classes in (3, 4)
            },
        },
        'logits needs 4 in dimension C, another input 3',
    ),
    ({'type': 'CrossEntropyLoss', 'use_sigmoid': True, 'use_mask': True}, 'exclude each other'),
    ({'type': 'CrossEntropyLoss', 'use_mask': True, 'class_weight': [1.0]}, 'use_mask takes no class_weight'),
    ({'type': 'CrossEntropyLoss', 'use_mask': True, 'ignore_index': 0}, 'no ignore_index'),
    ({'type': 'CrossEntropyLoss', 'use_mask': True, 'reduction': 'sum'}, "only reduction='mean'"),
    ({'type': 'CrossEntropyLoss', 'use_sigmoid': True, 'label_smoothing': 0.1}, 'needs the softmax mode'),
    ({'type': 'CrossEntropyLoss', 'use_mask': True, 'label_smoothing': 0.1}, 'needs the softmax mode'),
    ({'type': 'CrossEntropyLoss', 'class_weight': 2.0}, 'a single class_weight needs use_sigmoid'),
    ({'type': 'DiceLoss', 'use_sigmoid': False}, 'only the sigmoid activation'),
    ({'type': 'EQLV2Loss', 'use_sigmoid': False}, 'a sigmoid loss'),
    ({'type': 'EQLV2Loss', 'class_weight': 1.0}, 'without class_weight'),
    ({'type': 'EQLV2Loss', 'reduction': 'sum'}, "with reduction='mean'"),
    ({'type': 'FocalCustomLoss', 'activated': True}, 'takes logits'),
    ({'type': 'FocalCustomLoss', 'use_sigmoid': False}, 'only the sigmoid focal loss'),
    ({'type': 'GANLoss', 'gan_type': 'ragan'}, "gan_type must be .*'ragan'"),
    ({'type': 'GDLoss', 'loss_type': 'bcd'}, "loss_type must be .*'bcd'"),
    ({'type': 'GDLoss', 'loss_type': 'gwd', 'fun': 'exp'}, "fun must be .*'exp'"),
    ({'type': 'GDLoss', 'loss_type': 'gwd', 'representation': 'xywh'}, "representation must be .*'xywh'"),
    ({'type': 'GDLoss', 'loss_type': 'gwd', 'sqrt': False}, 'sqrt=False is for divergences'),
    ({'type': 'GDLoss', 'loss_type': 'kld', 'normalize': False}, 'normalize=False is for'),
    ({'type': 'GDLoss_v1', 'loss_type': 'jd'}, "loss_type must be .*'jd'"),
    ({'type': 'GDLoss_v1', 'loss_type': 'kld', 'fun': 'exp'}, "fun must be .*'exp'"),
    ({'type': 'HVULoss', 'loss_type': 'some'}, "'all' or 'individual', got 'some'"),
    ({'type': 'HVULoss', 'reduction': 'none'}, "'mean' or 'sum', got 'none'"),
    ({'type': 'HVULoss', 'category_nums': (1, 2)}, 'of one length'),
    ({'type': 'HVULoss', 'category_loss_weights': (1, 2)}, 'of one length'),
    ({'type': 'HVULoss', 'category_nums': (0, 1, 1, 1, 1, 1)}, 'must have tags'),
    ({'type': 'HVULoss', 'category_loss_weights': (1, 1, 1, 1, 1, -1)}, 'weights >= 0'),
    ({'type': 'LovaszLoss', 'classes': 'some'}, "'all', 'present' or a list, got 'some'"),
    ({'type': 'LovaszLoss', 'loss_type': 'many'}, "'binary' or 'multi_class', got 'many'"),
    ({'type': 'PSNRLoss', 'toY': True}, 'toY=True has no effect'),
    ({'type': 'PixelReconstructionLoss', 'criterion': 'L3'}, "'L1' or 'L2', got 'L3'"),
    ({'type': 'RLELoss', 'q_distribution': 'student'}, "'laplace' or 'gaussian', got 'student'"),
    ({'type': 'SeedLabelSmoothLoss', 'smoothing': -0.01}, 'smoothing .* got -0.01'),
    ({'type': 'SeedLabelSmoothLoss', 'smoothing': 1.01}, 'smoothing .* got 1.01'),
    ({'type': 'SwAVLoss', 'feat_dim': 4, 'crops_for_assign': [0, 2], 'num_crops': [2]}, 'crops_for_assign must name'),
    ({'type': 'SwAVLoss', 'feat_dim': 4, 'crops_for_assign': [0], 'num_crops': [1]}, 'at least 2'),
    ({'type': 'TransferalPerceptualLoss', 'criterion': 'l2'}, "'l1' or 'mse', got 'l2'"),
    ({'type': 'YOLOIoULoss', 'iou_mode': 'diou'}, "iou_mode must be .*'diou'"),
    ({'type': 'YOLOIoULoss', 'bbox_format': 'cxcywh'}, "'xyxy' or 'xywh', got 'cxcywh'"),
]


def test_options_that_make_no_sense_are_refused():
    with Failures() as failures:
        for config, message in REFUSED:
            with failures.of(config), pytest.raises(ConfigError, match=message):
                build_loss(config)


POSITIVES = {'pos_inds': torch.zeros(1).long(), 'pos_labels': torch.zeros(1).long()}
CALLS = [
    ({'type': 'EQLV2Loss', 'num_classes': 3}, {'reduction_override': 'sum'}, "the only reduction is 'mean'"),
    ({'type': 'GaussianFocalLoss'}, {**POSITIVES, 'pos_inds': None}, 'pos_labels needs pos_inds'),
    ({'type': 'GaussianFocalLoss'}, {**POSITIVES, 'pos_labels': None}, 'pos_inds needs pos_labels'),
    ({'type': 'GaussianFocalLoss'}, {**POSITIVES, 'weight': torch.ones(2, 3)}, 'pos_inds takes no weight'),
    ({'type': 'GaussianFocalLoss', 'reduction': 'none'}, POSITIVES, "no reduction='none'"),
    ({'type': 'KFLoss'}, {'pred_decode': torch.ones(2, 5)}, 'pred_decode and targets_decode are needed'),
    ({'type': 'KFLoss'}, {'targets_decode': torch.ones(2, 5)}, 'pred_decode and targets_decode are needed'),
    ({'type': 'L1Loss', 'reduction': 'sum'}, {'avg_factor': 2.0}, "avg_factor cannot be used with reduction='sum'"),
]


def test_calls_that_make_no_sense_are_refused():
    with Failures() as failures:
        for config, call, message in CALLS:
            with failures.of((config, call)), pytest.raises(ValueError, match=message):
                build_loss(config)(torch.zeros(2, 3), torch.zeros(2, 3), **call)
        with failures.of('MultiPosCrossEntropyLoss'), pytest.raises(ValueError, match='must have 2 dimensions'):
            build_loss('MultiPosCrossEntropyLoss')(torch.zeros(2, 3, 4), torch.zeros(2, 3, 4))
        sphere_face = build_loss({'type': 'SphereFaceLoss', 'in_features': 3, 'num_classes': 4})
        with failures.of('SphereFaceLoss'), pytest.raises(ValueError, match='but there are 4 classes'):
            sphere_face(torch.ones(2, 3), torch.zeros(2).long(), torch.ones(5, 3))
