"""mmseg: its decode heads with our losses, inputs that the specs do not draw, and our differences from it."""

import numpy as np
import pytest
import torch
from heads import assert_same_step
from mmengine.registry import MODELS, DefaultScope
from mmengine.structures import PixelData
from packages import host_class, is_fork
from pairs import EXACT, assert_call_agrees, evaluate, evaluate_host, in_double, pair_of, real
from shown import shows

from lossreg.compare import compare
from lossreg.registry import build_loss

pytestmark = pytest.mark.openmmlab

pytest.importorskip('mmseg', reason='needs the real OpenMMLab packages: tests/openmmlab/install.sh VENV')


OF_MMSEG = pytest.mark.skipif(is_fork('mmseg'), reason='the fork leaves ignored pixels out of the sum of class weights')


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


def labels(*shape: int, classes: int = 4, ignored: int | None = None) -> torch.Tensor:
    """Class indices, a fifth of them ignored."""
    drawn = torch.randint(0, classes, shape)
    return drawn if ignored is None else torch.where(torch.rand(shape) < 0.2, ignored, drawn)


# Decode heads

DECODE_LOSSES = {
    'cross-entropy': {'type': 'CrossEntropyLoss', 'loss_weight': 0.4},
    'non-ignored': {'type': 'CrossEntropyLoss', 'avg_non_ignore': True},
    'sigmoid': {'type': 'CrossEntropyLoss', 'use_sigmoid': True, 'loss_weight': 0.2},
    'dice': {'type': 'DiceLoss', 'use_sigmoid': False, 'loss_weight': 3.0},
    'tversky': {'type': 'TverskyLoss'},
    'lovasz': {'type': 'LovaszLoss', 'reduction': 'none'},
    'lovasz of images': {'type': 'LovaszLoss', 'per_image': True, 'class_weight': [0.5, 1.0, 2.0, 1.25]},
    'hausdorff': {'type': 'HuasdorffDisstanceLoss'},
    'one name': [
        {'type': 'CrossEntropyLoss', 'loss_weight': 1.0},
        {'type': 'DiceLoss', 'loss_weight': 2.0, 'loss_name': 'loss_ce'},
        {'type': 'LovaszLoss', 'reduction': 'none'},
    ],
}
PREFIXED = ('CrossEntropyLoss', 'DiceLoss', 'FocalLoss', 'KLDivLoss')


def ours(losses):
    """The configs of the same losses with our names."""
    if isinstance(losses, list):
        return [ours(loss) for loss in losses]
    return {**losses, 'type': f'lossreg.{"Seg" if losses["type"] in PREFIXED else ""}{losses["type"]}'}


FCN = {'type': 'FCNHead', 'in_channels': 6, 'channels': 5, 'in_index': 0, 'num_convs': 1, 'dropout_ratio': 0.0}
PID = {'type': 'PIDHead', 'in_channels': 8, 'channels': 5}


def head_with(losses, **options):
    """A decode head, FCN's by default, in double precision, with the same parameters each time."""
    torch.manual_seed(1)
    common = {'num_classes': 4, 'norm_cfg': {'type': 'BN'}, 'align_corners': False, 'loss_decode': losses}
    cfg = {**({} if 'type' in options else FCN), **common, **options}
    with DefaultScope.overwrite_default_scope('mmseg'):
        return MODELS.build(cfg).double()


class Head:
    """A decode head with the call of ``assert_same_step``."""

    def __init__(self, head):
        self.head = head
        self.named_parameters = head.named_parameters

    def loss(self, features, samples):
        return self.head.loss(features, samples, None)


def samples_of(*maps: torch.Tensor):
    """One sample per label map."""
    from mmseg.structures import SegDataSample

    return [SegDataSample(gt_sem_seg=PixelData(data=label.unsqueeze(0))) for label in maps]


@pytest.mark.parametrize('losses', DECODE_LOSSES.values(), ids=DECODE_LOSSES)
def test_fcn_head(losses):
    features, maps = (real(2, 6, 5, 7),), labels(2, 10, 14, ignored=255)
    heads = [Head(head_with(given)) for given in (losses, ours(losses))]
    with in_double():
        assert_same_step(*heads, features, samples_of(*maps))


def test_fcn_head_with_focal_loss():
    """mmseg's own loss fails here, see below; the head sums ours."""
    loss = head_with({'type': 'lossreg.SegFocalLoss'}).loss((real(2, 6, 5, 7),), samples_of(*labels(2, 5, 7)), None)
    assert loss['loss_focal'] > 0


def test_fcn_head_with_a_sampler():
    """The sampler calls the loss itself, and gives weights 0 and 1."""
    losses = {'type': 'CrossEntropyLoss'}
    features, maps = (real(2, 6, 5, 7),), labels(2, 10, 14, ignored=255)
    for thresh in (0.3, None):
        sampler = {'type': 'OHEMPixelSampler', 'thresh': thresh, 'min_kept': 20}
        heads = [Head(head_with(given, sampler=sampler)) for given in (losses, ours(losses))]
        assert_same_step(*heads, features, samples_of(*maps))


def test_fcn_head_of_one_class():
    losses = {'type': 'CrossEntropyLoss', 'use_sigmoid': True}
    features, maps = (real(2, 6, 5, 7),), labels(2, 10, 14, classes=2, ignored=255)
    options = {'num_classes': 2, 'out_channels': 1, 'threshold': 0.3}
    heads = [Head(head_with(given, **options)) for given in (losses, ours(losses))]
    with in_double():
        assert_same_step(*heads, features, samples_of(*maps))


def test_pid_head():
    """Cross-entropy, hard pixels and boundaries have their own calls; the last ignores all but certain boundaries."""
    losses = [
        {'type': 'CrossEntropyLoss', 'class_weight': [0.5, 1.0, 2.0, 1.25], 'loss_weight': 0.4},
        {'type': 'OhemCrossEntropy', 'thres': 0.3, 'min_kept': 20, 'class_weight': [0.5, 1.0, 2.0, 1.25]},
        {'type': 'BoundaryLoss', 'loss_weight': 20.0},
        {'type': 'OhemCrossEntropy', 'thres': 0.9, 'min_kept': 131072},
    ]
    heads = [Head(head_with(given, **PID)) for given in (losses, ours(losses))]
    for head in heads:
        torch.nn.init.constant_(head.head.d_cls_seg.bias, 1.5)  # about half of them are certain
    features = real(2, 4, 5, 7), real(2, 8, 5, 7), real(2, 4, 5, 7)
    samples = samples_of(*labels(2, 10, 14))
    for sample in samples:
        sample.gt_edge_map = PixelData(data=labels(1, 10, 14, classes=2))
    with in_double():
        assert_same_step(*heads, features, samples)


# Inputs that the specs do not draw


@pytest.mark.parametrize('avg_non_ignore', [False, True])
@pytest.mark.parametrize('ignore_index', [255, 2])
def test_cross_entropy_of_ignored_pixels(ignore_index, avg_non_ignore):
    options = {'avg_non_ignore': avg_non_ignore, 'loss_weight': 0.4}
    target, weight = labels(2, 3, 5, ignored=ignore_index), real(2, 3, 5).abs()
    softmax = pair_of('SegCrossEntropyLoss', 'pixels', **options)
    sigmoid = pair_of('SegCrossEntropyLoss', 'multilabel_pixels', use_sigmoid=True, **options)
    for pair in (softmax, sigmoid):
        assert_call_agrees(pair, real(2, 4, 3, 5), target, ignore_index=ignore_index)
        assert_call_agrees(pair, real(2, 4, 3, 5), target, weight, ignore_index=ignore_index)
        assert_call_agrees(pair, real(2, 4, 3, 5), target, weight, 7.5, ignore_index=ignore_index)
        assert_call_agrees(pair, real(2, 4, 3, 5), target, weight, None, 'none', ignore_index=ignore_index)
        assert_call_agrees(pair, real(2, 4, 3, 5), target, weight, None, 'sum', ignore_index=ignore_index)
    # a point head's scores
    assert_call_agrees(softmax, real(2, 4, 7), labels(2, 7, ignored=ignore_index), ignore_index=ignore_index)


@OF_MMSEG
@pytest.mark.parametrize('avg_non_ignore', [False, True])
def test_cross_entropy_with_class_weights(avg_non_ignore):
    options = {'class_weight': [0.5, 1.0, 2.0, 1.25], 'avg_non_ignore': avg_non_ignore}
    pair = pair_of('SegCrossEntropyLoss', 'pixels', **options)
    assert_call_agrees(pair, real(2, 4, 3, 5), labels(2, 3, 5))
    assert_call_agrees(pair, real(2, 4, 3, 5), labels(2, 3, 5), real(2, 3, 5).abs())
    # an ignored class has a weight, which counts unless avg_non_ignore is set
    assert_call_agrees(pair, real(2, 4, 3, 5), labels(2, 3, 5), ignore_index=2)
    # masks of queries
    assert_call_agrees(pair, real(6, 4), labels(6))
    assert_call_agrees(pair, real(6, 4), labels(6), None, 7.5)
    sigmoid = pair_of('SegCrossEntropyLoss', 'multilabel', use_sigmoid=True, **options)
    assert_call_agrees(sigmoid, real(6, 4), labels(6, ignored=255), ignore_index=255)
    assert_call_agrees(sigmoid, real(6, 4), real(6, 4).sigmoid(), real(6, 4).abs())


def test_cross_entropy_of_mask_points():
    """SAN's head gives a tensor of one element as average factor, and gets one back."""
    pair = pair_of('SegCrossEntropyLoss', 'dense', use_sigmoid=True, loss_weight=5.0)
    call = {'cls_score': real(3, 8).float(), 'label': (real(3, 8) > 0).float(), 'avg_factor': torch.tensor([24.0])}
    torch.testing.assert_close(pair.ours.loss(**call), pair.host(**call))
    assert pair.host(**call).shape == (1,)


@pytest.mark.parametrize('avg_non_ignore', [False, True])
def test_cross_entropy_of_one_class(avg_non_ignore):
    options = {'use_sigmoid': True, 'avg_non_ignore': avg_non_ignore, 'class_weight': [2.0]}
    pair = pair_of('SegCrossEntropyLoss', 'multilabel_pixels', **options)
    target, weight = labels(2, 3, 5, classes=2, ignored=255), real(2, 3, 5).abs()
    assert_call_agrees(pair, real(2, 1, 3, 5), target, ignore_index=255)
    assert_call_agrees(pair, real(2, 1, 3, 5), target, weight, 7.5, ignore_index=255)
    with pytest.raises(IndexError, match='label holds 2, but labels go from 0 to 1'):
        pair.ours.loss(real(2, 1, 3, 5), torch.full((2, 3, 5), 2))


def test_cross_entropy_of_masks():
    ours, host = build_loss({'type': 'SegCrossEntropyLoss', 'use_mask': True}), host_class('mmseg.CrossEntropyLoss')
    call = {'cls_score': real(3, 4, 5, 6).requires_grad_(), 'label': (real(3, 5, 6) > 0).double()}
    call['weight'] = torch.tensor([3, 0, 3])
    want = evaluate_host(host(use_mask=True), {**call, 'ignore_index': None})
    agreement = compare(evaluate(ours, call), want, EXACT)
    assert agreement, agreement.detail


@pytest.mark.parametrize('name', ['weights.npy', 'weights.json', 'weights.pkl'])
@pytest.mark.parametrize('loss', ['SegCrossEntropyLoss', 'TverskyLoss', 'LovaszLoss'])
def test_class_weights_from_a_file(loss, name, tmp_path):
    path, weights = tmp_path / name, [0.5, 1.0, 2.0, 1.25]
    if name.endswith('npy'):
        np.save(path, np.array(weights))
    else:
        from mmengine.fileio import dump

        dump(weights, path)
    options = {'class_weight': str(path)} | ({'per_image': True} if loss == 'LovaszLoss' else {})
    assert build_loss({'type': loss, **options}).class_weight.tolist() == weights
    assert_call_agrees(pair_of(loss, 'pixels', **options), real(2, 4, 3, 5), labels(2, 3, 5))


def test_dice_of_what_has_no_class():
    """Labels C and 255 are 0 in every class, and a class may be ignored."""
    for options in ({}, {'naive_dice': True, 'ignore_index': 1}, {'use_sigmoid': False}):
        target = labels(3, 4, 5, classes=5, ignored=255)
        assert_call_agrees(pair_of('SegDiceLoss', 'pixels', **options), real(3, 4, 4, 5), target, ignore_index=255)
    # one class, with label 0 and without softmax
    for sigmoid in (False, True):
        pair = pair_of('SegDiceLoss', 'pixels', use_sigmoid=sigmoid)
        assert_call_agrees(pair, real(3, 1, 4, 5), labels(3, 4, 5, classes=2), real(3).abs())


def one_hot(target: torch.Tensor, classes: int) -> torch.Tensor:
    """One-hot targets (N, C, ...), zeros for an index that is not a class."""
    return torch.stack([(target == k).double() for k in range(classes)], 1)


@pytest.mark.parametrize(
    'options',
    [{}, {'alpha': [0.25, 0.5, 0.75, 0.125], 'gamma': 1.5}, {'class_weight': [0.5, 1.0, 2.0, 1.25], 'alpha': 0.25}],
)
@pytest.mark.parametrize('shape', [(7,), (2, 3, 5)])
def test_focal_loss_of_class_indices(shape, options):
    """mmseg's numbers for the same targets one-hot, with weight 0 where they are ignored."""
    pair = pair_of('SegFocalLoss', 'pixels' if len(shape) > 1 else 'labels', **options)
    target = labels(*shape, classes=5, ignored=255)  # 4 is background
    dense = {'pred': real(shape[0], 4, *shape[1:]).requires_grad_(), 'target': one_hot(target, 4)}
    for weight in (torch.ones(shape).double(), real(*shape).abs()):
        for reduced in ({}, {'avg_factor': 7.5}, {'reduction_override': 'none'}):
            flat = (weight * (target != 255)).flatten()
            want = evaluate_host(pair.host, {**dense, 'weight': flat, **reduced})
            for given in (weight, weight.flatten()):
                call = {**dense, 'target': target, 'weight': given, **reduced}
                agreement = compare(evaluate(pair.ours.loss, call), want, EXACT)
                assert agreement, agreement.detail


def test_focal_loss_of_dense_targets_of_an_ignored_class():
    pair = pair_of('SegFocalLoss', 'dense_pixels')
    target = real(2, 4, 3, 5).sigmoid()
    assert_call_agrees(pair, real(2, 4, 3, 5), target, ignore_index=1)
    assert_call_agrees(pair, real(2, 4, 3, 5), torch.zeros_like(target), ignore_index=0)
    # all or none of the weights
    assert_call_agrees(pair_of('SegFocalLoss', 'dense'), real(7, 4), real(7, 4).sigmoid(), real(7).abs())


@pytest.mark.parametrize('per_image', [False, True])
@pytest.mark.parametrize('ignore_index', [255, 2, None])
def test_lovasz_of_ignored_pixels(ignore_index, per_image):
    options = {'per_image': per_image, 'reduction': 'none'}
    target, binary = labels(3, 4, 5, ignored=ignore_index), labels(3, 4, 5, classes=2, ignored=ignore_index)
    # the call's value replaces the constructor's
    ours = build_loss({'type': 'LovaszLoss', **options, 'ignore_index': ignore_index})
    hinge = build_loss({'type': 'LovaszLoss', 'loss_type': 'binary', **options, 'ignore_index': ignore_index})
    host = host_class('mmseg.LovaszLoss')
    for loss, theirs, x, y in (
        (ours, host(**options), real(3, 4, 4, 5), target),
        (hinge, host(loss_type='binary', **options), real(3, 4, 5), binary),
    ):
        call = {'cls_score': x.requires_grad_(), 'label': y}
        want = evaluate_host(theirs, {**call, 'ignore_index': ignore_index})
        agreement = compare(evaluate(loss, call), want, EXACT)
        assert agreement, agreement.detail
        if ignore_index is not None:
            other = build_loss({'type': 'LovaszLoss', 'loss_type': loss.loss_type, **options})
            agreement = compare(evaluate(other, {**call, 'ignore_index': ignore_index}), want, EXACT)
            assert agreement, agreement.detail


def test_lovasz_of_voxels():
    """Cylinder3D's head gives scores of voxels, without an image."""
    pair = pair_of('Det3DLovaszLoss', 'points', reduction='none')
    assert_call_agrees(pair, real(9, 4), labels(9, ignored=0), ignore_index=0)


@pytest.mark.parametrize('min_kept', [0, 1, 5, 30])
@pytest.mark.parametrize('thres', [0.0, 0.2, 0.9])
def test_ohem_keeps_as_many(thres, min_kept):
    pair = pair_of('OhemCrossEntropy', 'pixels', thres=thres, min_kept=min_kept)
    assert_call_agrees(pair, real(2, 4, 3, 5), labels(2, 3, 5, ignored=255))


def test_boundaries_that_are_neither():
    pair = pair_of('BoundaryLoss', 'maps')
    assert_call_agrees(pair, real(2, 1, 3, 5), labels(2, 3, 5, classes=3))
    for none in (torch.zeros(2, 3, 5), torch.ones(2, 3, 5), torch.full((2, 3, 5), 255.0)):
        call = real(2, 1, 3, 5).float(), none.long()
        assert float(pair.ours.loss(*call)) == float(pair.host(*call)) == 0.0


def test_depths_that_are_not_valid():
    pair = pair_of('SiLogLoss', 'maps', eps=0.3)
    depth = real(3, 1, 4, 5).abs()
    assert_call_agrees(pair, real(3, 1, 4, 5).abs(), depth)
    assert_call_agrees(pair, real(3, 1, 4, 5), depth, real(3).abs(), None, 'none')
    depth[1] = 0.0
    value = evaluate(pair.ours.loss, {'pred': depth.clone().requires_grad_(), 'target': depth})
    assert value['loss'] == 0.0
    assert not value['gradient 0'].any()
    unknown = real(3, 1, 4, 5).abs()
    unknown[0, 0, 0] = torch.nan
    assert float(pair.ours.loss(unknown, depth)) == pytest.approx(float(pair.host(unknown, depth)), rel=1e-12)


def test_distances_of_masks():
    """Objects of many shapes, and one that covers its image, for which SciPy measures to a point outside."""
    pair = pair_of('HuasdorffDisstanceLoss', 'pixels')
    for probability in (0.5, 0.9, 0.99, 1.0):
        target = torch.where(torch.rand(3, 9, 13) < probability, labels(3, 9, 13, classes=3) + 1, 0)
        scores = real(3, 4, 9, 13)
        scores[:, 0] -= 2.0 / (1.01 - probability)
        assert_call_agrees(pair, scores, target)
        assert_call_agrees(pair, scores.detach(), torch.where(target == 3, 255, target), 2.5)


# Differences


@OF_MMSEG
@shows('class_weight with ignored pixels', 'SegCrossEntropyLoss')
def test_class_weight_of_ignored_pixels(ours, host):
    weights, scores, target = [0.5, 2.0], real(1, 2, 3), torch.tensor([[0, 1, 255]])
    with pytest.raises(IndexError):
        host(class_weight=weights)(scores, target, ignore_index=255)
    expected = host(class_weight=weights)(scores[:, :, :2], target[:, :2])
    for avg_non_ignore in (False, True):
        loss = ours(class_weight=weights, avg_non_ignore=avg_non_ignore)
        torch.testing.assert_close(loss(scores, target, ignore_index=255), expected)


@shows('class_weight with use_sigmoid weighs the classes', 'SegCrossEntropyLoss')
def test_class_weight_of_images(ours, host):
    options = {'use_sigmoid': True, 'reduction': 'none'}
    weights, scores, target = [0.5, 2.0], torch.zeros(1, 2, 1, 2), torch.tensor([[[0, 1]]])
    plain = host(**options)(scores, target)
    positive = torch.tensor([[[[1.0, 0.0]], [[0.0, 1.0]]]])
    of_classes, of_columns = torch.tensor([0.5, 2.0]).view(2, 1, 1), torch.tensor([0.5, 2.0])
    # here the positive of class k is in column k, so another image is needed to tell them apart
    flipped = torch.tensor([[[1, 0]]])
    theirs = host(class_weight=weights, **options)(scores, flipped)
    mine = ours(class_weight=weights, **options)(scores, flipped)
    torch.testing.assert_close(theirs, torch.where(positive.flip(3) == 1, plain * of_columns, plain))
    torch.testing.assert_close(mine, torch.where(positive.flip(3) == 1, plain * of_classes, plain))
    with pytest.raises(RuntimeError, match='size'):
        host(class_weight=weights, **options)(torch.zeros(1, 2, 1, 3), torch.zeros(1, 1, 3, dtype=torch.long))


@shows("one class with use_sigmoid and reduction='none'", 'SegCrossEntropyLoss')
def test_shape_of_one_class(ours, host):
    options = {'use_sigmoid': True, 'reduction': 'none'}
    call = real(2, 1, 3, 5).float(), labels(2, 3, 5, classes=2)
    assert host(**options)(*call).shape == (2, 3, 5)
    torch.testing.assert_close(ours(**options)(*call), host(**options)(*call).unsqueeze(1))


@shows('use_mask works', 'SegCrossEntropyLoss')
def test_mask_without_more(ours, host):
    call = real(2, 3, 4, 4), (real(2, 4, 4) > 0).double(), torch.tensor([0, 2])
    with pytest.raises(AssertionError, match='ignore_index'):
        host(use_mask=True)(*call)
    torch.testing.assert_close(ours(use_mask=True)(*call), host(use_mask=True)(*call, ignore_index=None))


@shows('class_weight with use_mask', 'SegCrossEntropyLoss')
def test_class_weight_of_masks(ours, host):
    call = real(2, 3, 4, 4), (real(2, 4, 4) > 0).double(), torch.tensor([0, 2])
    weighted = host(use_mask=True, class_weight=[1.0, 1.0, 1.0, 0.0])(*call, ignore_index=None)
    assert weighted < host(use_mask=True)(*call, ignore_index=None)
    with pytest.raises(ValueError, match='class_weight'):
        ours(use_mask=True, class_weight=[1.0, 1.0, 1.0, 0.0])


@shows('labels are integers', 'SegCrossEntropyLoss')
def test_class_probabilities(ours, host):
    scores, probabilities = real(2, 3), real(2, 3).softmax(1)
    assert host()(scores, probabilities).isfinite()
    with pytest.raises(ValueError, match='label'):
        ours()(scores, probabilities)


@shows('inputs of different shapes', 'SegCrossEntropyLoss')
def test_weights_of_another_shape(ours, host):
    scores, target, weight = real(2, 3, 4, 5), labels(2, 4, 5, classes=3), real(2, 1, 5)
    assert host()(scores, target, weight).isfinite()
    with pytest.raises(ValueError, match=r'weight has shape \[2, 1, 5\] and label has shape \[2, 4, 5\]'):
        ours()(scores, target, weight)


@shows('a label below 0, or above C', 'SegDiceLoss')
def test_dice_labels_out_of_range(ours, host):
    scores = real(1, 3, 2, 2)
    for label, meant in ((-1, 0), (7, 3)):
        call = scores, torch.full((1, 2, 2), label)
        torch.testing.assert_close(host()(*call), host()(scores, torch.full((1, 2, 2), meant)))
        with pytest.raises(IndexError, match=str(label)):
            ours()(*call)


@shows('only class is the ignored one', 'SegDiceLoss')
def test_dice_of_no_class(ours, host):
    call = real(2, 1, 3, 4).requires_grad_(), labels(2, 3, 4, classes=1)
    with pytest.raises(AssertionError):
        host(ignore_index=0)(*call)
    for naive, empty in ((False, 1.0), (True, 0.0)):
        loss = ours(ignore_index=0, naive_dice=naive)(*call)
        assert loss == empty
        assert not torch.autograd.grad(loss, call[0])[0].any()


@shows('class indices work', 'SegFocalLoss')
def test_focal_loss_on_the_cpu(ours, host):
    call = real(2, 4, 3, 5), labels(2, 3, 5)
    with pytest.raises(RuntimeError, match='size'):
        host()(*call)
    torch.testing.assert_close(ours()(*call), host()(call[0], one_hot(call[1], 4)))


@shows('weights of images', 'SegFocalLoss')
def test_focal_weights_of_images(ours, host):
    scores, target, weight = real(2, 4, 3, 5), real(2, 4, 3, 5).sigmoid(), real(2, 3, 5).abs()
    with pytest.raises(AssertionError):
        host()(scores, target, weight)
    torch.testing.assert_close(ours()(scores, target, weight), host()(scores, target, weight.flatten()))


@shows('neither a class nor ignored', 'TverskyLoss', 'HuasdorffDisstanceLoss')
def test_labels_out_of_range(ours, host):
    call = real(1, 3, 2, 2), torch.tensor([[[0, 7], [1, 2]]])
    assert host()(*call).isfinite()
    with pytest.raises(IndexError, match='target holds 7'):
        ours()(*call)


@shows('need not add up to 1', 'TverskyLoss')
def test_tanimoto(ours, host):
    with pytest.raises(AssertionError, match='alpha and beta'):
        host(alpha=1.0, beta=1.0)
    # p = 1/2 everywhere: TP = 1, FP = 1, FN = 1 in each class
    loss = ours(alpha=1.0, beta=1.0, smooth=0.0)(torch.zeros(1, 2, 4), torch.tensor([[0, 0, 1, 1]]))
    assert float(loss) == pytest.approx(1 - 1 / 3)


@shows('ignore_index=None', 'TverskyLoss', 'HuasdorffDisstanceLoss')
def test_no_ignored_label(ours, host):
    call = real(1, 3, 4, 4), labels(1, 4, 4, classes=3)
    with pytest.raises((AttributeError, TypeError)):
        host(ignore_index=None)(*call)
    torch.testing.assert_close(ours(ignore_index=None)(*call), ours(ignore_index=255)(*call))


@shows('no average over 0', 'LovaszLoss', 'Det3DLovaszLoss')
def test_average_over_zero(ours, host):
    each = {'per_sample' if host.__module__.startswith('mmdet3d') else 'per_image': True}
    call = {'cls_score': real(2, 3, 4, 5).requires_grad_(), 'label': labels(2, 4, 5, classes=3)}
    got = evaluate(ours(**each), {**call, 'avg_factor': 0.0})
    assert not any(x.any() for x in got.values())
    total = evaluate_host(host(**each, reduction='sum'), call)['loss']
    want = evaluate_host(host(**each), {**call, 'avg_factor': 0.0})['loss']
    assert want == pytest.approx(total / torch.finfo(torch.float32).eps)


@shows('any reduction builds', 'LovaszLoss', 'Det3DLovaszLoss')
def test_reduction_of_one_loss(ours, host):
    with pytest.raises(AssertionError, match='none'):
        host()
    call = real(2, 3, 4, 5).float(), labels(2, 4, 5, classes=3)
    for reduction in ('none', 'mean', 'sum'):
        torch.testing.assert_close(ours(reduction=reduction)(*call), host(reduction='none')(*call))


@shows('gradient of equal errors', 'LovaszLoss', 'Det3DLovaszLoss')
def test_equal_errors(ours, host):
    """If every error is 1, the gradients are the steps of the Jaccard loss, which sum to 1 in any order."""
    call = {'cls_score': torch.zeros(1, 1, 60).double().requires_grad_(), 'label': torch.arange(60).view(1, 1, 60) % 2}
    got = evaluate(ours(loss_type='binary', reduction='none'), call)
    want = evaluate_host(host(loss_type='binary', reduction='none'), call)
    assert got['loss'] == pytest.approx(want['loss'])
    assert np.abs(got['gradient 0']).sum() == pytest.approx(np.abs(want['gradient 0']).sum())
    # 30 pixels are foreground; the first is not, the second is
    np.testing.assert_allclose(got['gradient 0'][0, 0, :2], [1 / 31, -(2 / 31 - 1 / 31)])


@shows('everything ignored gives 0', 'LovaszLoss', 'Det3DLovaszLoss')
def test_everything_ignored(ours, host):
    call = {'cls_score': real(2, 3, 4, 5).requires_grad_(), 'label': torch.full((2, 4, 5), 255)}
    assert host(reduction='none')(**call).shape == (0, 3)
    got = evaluate(ours(reduction='none'), call)
    assert got['loss'].shape == ()
    assert not any(x.any() for x in got.values())


@shows('a single pixel that is not ignored', 'LovaszLoss', 'Det3DLovaszLoss')
def test_single_pixel(ours, host):
    scores, target = real(1, 3, 1, 2), torch.tensor([[[255, 1]]])
    with pytest.raises(IndexError):
        host(reduction='none')(scores, target)
    expected = 1 - scores[0, :, 0, 1].softmax(0)[1]
    torch.testing.assert_close(ours(reduction='none')(scores, target), expected)


@shows('no hard pixel', 'OhemCrossEntropy')
def test_no_hard_pixel(ours, host):
    call = {'score': torch.tensor([[[[9.0]], [[0.0]]]]).requires_grad_(), 'target': torch.tensor([[[0]]])}
    assert host()(**call).isnan()
    assert not any(x.any() for x in evaluate(ours(), call).values())


@shows('a NaN prediction gives NaN', 'OhemCrossEntropy')
def test_nan_among_hard_pixels(ours, host):
    scores, target = torch.zeros(1, 2, 1, 3), torch.zeros(1, 1, 3, dtype=torch.long)
    scores[0, 0, 0, 0] = torch.nan
    assert host(min_kept=1)(scores, target).isfinite()
    assert ours(min_kept=1)(scores, target).isnan()


@shows('a NaN prediction of weight 0', 'BoundaryLoss')
def test_nan_without_a_boundary(ours, host):
    call = torch.full((1, 1, 2, 2), torch.nan), torch.zeros(1, 2, 2)
    assert host()(*call).isnan()
    assert float(ours()(*call)) == 0.0


@shows('class_weight weighs the classes', 'HuasdorffDisstanceLoss')
def test_distance_class_weights(ours, host):
    call = real(1, 3, 4, 4), labels(1, 4, 4, classes=3)
    with pytest.raises(AssertionError):
        host(class_weight=[1.0, 1.0, 1.0])(*call)
    torch.testing.assert_close(ours(class_weight=[9.0, 1.0, 1.0])(*call), host()(*call))
    one = ours(class_weight=[0.0, 1.0, 0.0])(*call) + ours(class_weight=[0.0, 0.0, 1.0])(*call)
    torch.testing.assert_close(one, host()(*call))


@shows('a class that is ignored adds nothing', 'HuasdorffDisstanceLoss')
def test_distance_of_an_ignored_class(ours, host):
    scores, target = real(1, 3, 4, 4), labels(1, 4, 4, classes=2)
    first = ours(class_weight=[0.0, 1.0, 0.0])(scores, target)
    torch.testing.assert_close(ours(ignore_index=2)(scores, target), first)
    torch.testing.assert_close(host(ignore_index=2)(scores, target), 2 * first)
    with pytest.raises(UnboundLocalError):
        host(ignore_index=1)(scores, target)
