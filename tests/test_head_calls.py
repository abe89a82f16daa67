"""A loss under a host's head in a config is exported and checked with that head's call."""

import inspect
import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch

from lossreg.__main__ import main
from lossreg.artefact import read_manifest
from lossreg.checks.oracle import oracle_of, run_oracle
from lossreg.config import requests_for
from lossreg.errors import ConfigError
from lossreg.head_calls import TABLE, Head, in_table
from lossreg.registry import load_losses
from lossreg.request import Request
from lossreg.runtimes import Eager
from lossreg.samples import draw
from lossreg.spec import spec_of


def config_of(tmp_path, scope, model):
    path = tmp_path / 'config.py'
    path.write_text(f'default_scope = {scope!r}\nmodel = {model}\n')
    return str(path)


def calls_in(tmp_path, scope, model):
    """The head, call, optional inputs and constants of each request of a config."""
    requests, left = requests_for(config_of(tmp_path, scope, model))
    assert not left
    return [(r.heads, r.call_name, r.optional, dict(r.constants)) for r in requests]


FCN = "dict(type='FCNHead', num_classes=4, {}loss_decode=dict(type='CrossEntropyLoss', avg_non_ignore=True))"
BBOX_HEAD = "dict(type='{}', loss_bbox=dict(type='{}'))"


@pytest.mark.parametrize(
    ('scope', 'model', 'call', 'optional', 'constants'),
    [
        ('mmseg', FCN.format(''), 'pixels', (), {'ignore_index': 255}),
        ('mmseg', FCN.format('ignore_index=0, '), 'pixels', (), {'ignore_index': 0}),
        ('mmseg', FCN.format("sampler=dict(type='OHEMPixelSampler'), "), 'pixels', ('weight',), {'ignore_index': 255}),
        ('mmdet', BBOX_HEAD.format('RetinaHead', 'L1Loss'), 'vectors', ('weight', 'avg_factor'), {}),
        ('mmdet', BBOX_HEAD.format('RetinaHead', 'GIoULoss'), 'coordinate_weights', ('avg_factor',), {}),
        ('mmdet', BBOX_HEAD.format('FCOSHead', 'GIoULoss'), 'boxes', ('weight', 'avg_factor'), {}),
        ('mmdet', BBOX_HEAD.format('YOLOXHead', 'IoULoss'), 'boxes', (), {}),
        ('mmdet', BBOX_HEAD.format('AutoAssignHead', 'GIoULoss'), 'boxes', (), {'reduction_override': 'none'}),
        ('mmseg', BBOX_HEAD.format('mmdet.FCOSHead', 'mmdet.GIoULoss'), 'boxes', ('weight', 'avg_factor'), {}),
        ('mmdet', BBOX_HEAD.format('FCOSHead', 'lossreg.GIoULoss'), 'boxes', ('weight', 'avg_factor'), {}),
        ('mmpose', "dict(type='RTMCCHead', loss=dict(type='KLDiscretLoss'))", 'pairs', (), {}),
        ('mmpose', "dict(type='RTMCCHead', loss=dict(type='lossreg.KLDiscretLoss'))", 'pairs', (), {}),
        ('mmpose', "dict(type='HeatmapHead', loss=dict(type='KeypointMSELoss'))", 'heatmaps', ('target_weights',), {}),
        ('mmpretrain', "dict(type='LinearClsHead', loss=dict(type='CrossEntropyLoss'))", 'labels', ('avg_factor',), {}),
        (
            'mmaction',
            "dict(type='TEM', tem_match_threshold=0.7, loss_cls=dict(type='BinaryLogisticRegressionLoss'))",
            'scores',
            (),
            {'threshold': 0.7},
        ),
        (
            'mmrazor',
            "dict(type='ConfigurableDistiller', distill_losses=dict(kd=dict(type='KDSoftCELoss')), "
            'loss_forward_mappings=dict(kd=dict(preds_S=dict(), preds_T=dict(), weight=dict())))',
            'vectors',
            ('weight',),
            {},
        ),
    ],
)
def test_the_call_is_the_heads(scope, model, call, optional, constants, tmp_path):
    ((heads, *found),) = calls_in(tmp_path, scope, model)
    assert (len(heads), found) == (1, [call, optional, constants])


def test_a_head_that_calls_its_loss_in_several_ways(tmp_path):
    found = calls_in(tmp_path, 'mmagic', "dict(type='SRGAN', gan_loss=dict(type='GANLoss', gan_type='vanilla'))")
    assert [call for _, call, _, _ in found] == ['generator', 'discriminator_real', 'discriminator_fake']


def test_a_list_of_losses_of_which_each_is_called_otherwise(tmp_path):
    losses = "[dict(type='CrossEntropyLoss'), dict(type='OhemCrossEntropy'), dict(type='BoundaryLoss')]"
    found = calls_in(tmp_path, 'mmseg', f"dict(type='PIDHead', loss_decode={losses})")
    assert [constants for _, _, _, constants in found] == [{'ignore_index': 255}, {}, {}]


def test_a_loss_that_stands_alone_is_called_as_ever(tmp_path):
    (tmp_path / 'config.py').write_text("default_scope = 'mmdet'\nloss = dict(type='L1Loss')\n")
    ((heads, call, optional, constants),) = [
        (r.heads, r.call_name, r.optional, r.constants) for r in requests_for(str(tmp_path / 'config.py'))[0]
    ]
    assert (heads, call, optional, constants) == ((), '', None, {})


def pixels(ignored):
    """Logits (2, 4, 3, 5) and labels, a third of them ignored."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 4, (2, 3, 5))
    labels = np.where(rng.random(labels.shape) < 0.33, ignored, labels)
    assert (labels == ignored).any()
    return rng.standard_normal((2, 4, 3, 5)).astype(np.float32), labels


def cross_entropy(logits, labels, ignored):
    """The mean over pixels that are not ignored, and its gradient, in float64."""
    x = np.moveaxis(logits.astype(np.float64), 1, -1)[labels != ignored]
    y = labels[labels != ignored]
    p = np.exp(x) / np.exp(x).sum(-1, keepdims=True)
    gradient = np.zeros((*labels.shape, logits.shape[1]))
    gradient[labels != ignored] = (p - np.eye(4)[y]) / len(y)
    return -np.log(p[np.arange(len(y)), y]).mean(), np.moveaxis(gradient, -1, 1)


@pytest.mark.parametrize(('option', 'ignored'), [('ignore_index=0, ', 0), ('', 255)])
def test_the_file_of_a_decode_head_ignores_what_the_head_does(option, ignored, tmp_path, capsys):
    config = config_of(tmp_path, 'mmseg', FCN.format(option))
    assert main(['export', config, '--out', str(tmp_path / 'out'), '--grad', '--json']) == 0
    (row,) = json.loads(capsys.readouterr().out)['rows']
    logits, labels = pixels(ignored)
    session = onnxruntime.InferenceSession(row['path'])
    loss, gradient = session.run(['loss', 'grad_cls_score'], {'cls_score': logits, 'label': labels})
    want, want_gradient = cross_entropy(logits, labels, ignored)
    np.testing.assert_allclose(loss, want, rtol=1e-6)
    np.testing.assert_allclose(gradient, want_gradient, atol=1e-7)
    (entry,) = read_manifest(tmp_path / 'out')['artefacts'].values()
    assert (row['heads'], entry['heads']) == (['mmseg.FCNHead.loss_decode'],) * 2
    assert entry['constants'] == {'ignore_index': ignored}
    assert json.loads(session.get_modelmeta().custom_metadata_map['lossreg.json'])['constants'] == entry['constants']


def test_files_of_all_formats_with_a_constant_that_is_a_text(tmp_path, capsys):
    """AutoAssign's head asks for the loss of each box, and the manifest restores that call."""
    config = config_of(tmp_path, 'mmdet', BBOX_HEAD.format('AutoAssignHead', 'GIoULoss'))
    assert main(['export', config, '--out', str(tmp_path / 'out'), '--format', 'all']) == 0
    manifest = read_manifest(tmp_path / 'out')['artefacts']
    assert len(manifest) == 3
    (path,) = (tmp_path / 'out').glob('*.onnx')
    boxes = np.array([[0, 0, 2, 2], [0, 0, 4, 4], [0, 0, 2, 4]], np.float32)
    (loss,) = onnxruntime.InferenceSession(path).run(['loss'], {'pred': boxes, 'target': boxes[::-1].copy()})
    np.testing.assert_allclose(loss, [0.5, 0.0, 0.5], atol=1e-6)
    capsys.readouterr()
    assert main(['check', str(tmp_path / 'out' / 'manifest.json'), '--json']) == 0
    rows = json.loads(capsys.readouterr().out)['rows']
    assert Counter(row['backend'] for row in rows if row['check'] == 'hash') == {
        'torchscript': 1,
        'pt2': 1,
        'ort-cpu': 1,
    }
    assert {row['status'] for row in rows} == {'pass'}


def test_check_tests_the_heads_call_in_all_backends(tmp_path, capsys):
    config = config_of(tmp_path, 'mmseg', FCN.format('ignore_index=0, '))
    backends = ('eager', 'torchscript', 'ort-cpu')
    assert main(['check', config, '--json', *(f'--backend={backend}' for backend in backends)]) == 0
    rows = json.loads(capsys.readouterr().out)['rows']
    assert {(row['call'], tuple(row['inputs'])) for row in rows} == {('pixels', ('cls_score', 'label'))}
    assert {row['backend'] for row in rows} == {*backends}
    checks = {row['check'] for row in rows}
    assert {'half ignored', 'all ignored', 'label = -1'} <= checks
    (request,) = requests_for(config)[0]
    (unit,) = request.units()
    drawn = draw(unit)['label'].numpy()
    assert not np.isin(drawn, [-100, 255]).any()
    assert (drawn == 0).sum() > drawn.size / 5


def test_equal_calls_are_one_file_and_others_have_another_name(tmp_path):
    heads = ', '.join(FCN.format(option) for option in ('', 'ignore_index=0, ', ''))
    config = config_of(tmp_path, 'mmseg', f"dict(type='EncoderDecoder', auxiliary_head=[{heads}])")
    assert main(['export', config, '--out', str(tmp_path / 'out'), '--format', 'torchscript']) == 0
    manifest = read_manifest(tmp_path / 'out')['artefacts']
    assert sorted(entry['constants']['ignore_index'] for entry in manifest.values()) == [0, 255]


def test_inputs_named_by_hand_come_before_the_heads(tmp_path):
    config = config_of(tmp_path, 'mmdet', BBOX_HEAD.format('YOLOXHead', 'IoULoss'))
    assert main(['export', config, '--with', 'weight', '--out', str(tmp_path / 'out'), '--format', 'torchscript']) == 0
    (entry,) = read_manifest(tmp_path / 'out')['artefacts'].values()
    assert [i['name'] for i in entry['inputs']] == ['pred', 'target', 'weight']


@pytest.mark.parametrize('head', ['mmfoo.BarHead', 'mmseg.RetinaHead'])
def test_an_unknown_head_is_said_to_be_unknown(head, tmp_path, capsys):
    """A head with the same name in another package is another head."""
    config = config_of(tmp_path, 'mmdet', f"dict(type='{head}', loss_cls=dict(type='mmdet.FocalLoss'))")
    line = f'lossreg: the call of {head}.loss_cls is unknown; FocalLoss is used with its own default call\n'
    assert main(['export', config, '--out', str(tmp_path / 'out'), '--format', 'torchscript']) == 0
    assert line in capsys.readouterr().err
    (entry,) = read_manifest(tmp_path / 'out')['artefacts'].values()
    assert (entry['heads'], entry['constants']) == ([f'unknown: {head}.loss_cls'], {})
    assert main(['check', config, '--backend', 'torchscript', '--json']) == 0
    assert capsys.readouterr().err == line


def test_ours_that_does_not_take_what_the_head_gives_is_an_error(tmp_path, capsys):
    """In training, the head would raise. The host's own class may take more; then ours is skipped."""
    model = "dict(type='FCNHead', loss_decode=dict(type='{}OhemCrossEntropy'))"
    message = 'mmseg.FCNHead gives ignore_index, which OhemCrossEntropy does not take'
    _, (left,) = requests_for(config_of(tmp_path, 'mmseg', model.format('lossreg.')))
    assert left.is_error
    assert message in left.reason
    _, (left,) = requests_for(config_of(tmp_path, 'mmseg', model.format('')))
    assert not left.is_error
    assert message in left.reason


def test_no_option_of_a_head_stands_in_two_rows():
    places = Counter(f'{r.package}.{head}.{option}' for r in TABLE for head in r.heads.split() for option in r.losses)
    assert not [place for place, count in places.items() if count > 1]


OVERRIDES = [
    (name, parameter, value)
    for name, cls in load_losses().items()
    for parameter in spec_of(cls).overrides
    for value in {'reduction_override': ('none', 'sum'), 'ignore_index': (1,), 'threshold': (0.9,)}.get(parameter, ())
]


@pytest.mark.parametrize('name', dict.fromkeys(name for name, _, _ in OVERRIDES))
def test_a_constant_of_the_call_is_the_option_that_it_replaces(name):
    """In eager, in the oracle and in the samples, as if the loss had been built with it."""
    cls = load_losses()[name]
    spec = spec_of(cls)
    for parameter, value in [(p, v) for n, p, v in OVERRIDES if n == name]:
        option = spec.overrides[parameter]
        if parameter not in parameters_of(cls.forward) or option not in parameters_of(cls.__init__):
            continue
        called = replace(Request.of({'type': cls, **spec.variants['default']}), constants={parameter: value})
        try:
            built = Request.of({'type': cls, **spec.variants['default'], option: value})
        except ConfigError:
            continue
        units = zip(called.units(), built.units(), strict=True)
        for one, other in units:
            assert [i.name for i in one.inputs] == [i.name for i in other.inputs]
            inputs = draw(one, seed=3)
            for input_name, drawn in draw(other, seed=3).items():
                torch.testing.assert_close(inputs[input_name], drawn)
            found, want = (Eager(replace(unit, grad=True))(inputs) for unit in (one, other))
            for output, array in want.items():
                np.testing.assert_array_equal(found[output], array)
            if (oracle := oracle_of(cls)) is not None:
                found, want = (run_oracle(oracle, unit, inputs) for unit in (one, other))
                for output, array in want.items():
                    np.testing.assert_array_equal(found[output], array)


def parameters_of(function):
    return inspect.signature(function).parameters


def test_overrides_are_tried():
    """Otherwise, the test above would test nothing."""
    assert {parameter for _, parameter, _ in OVERRIDES} == {'reduction_override', 'ignore_index', 'threshold'}
    assert len({name for name, parameter, _ in OVERRIDES if parameter == 'ignore_index'}) >= 6


CENSUS = json.loads((Path(__file__).parents[1] / 'docs' / 'host_classes.json').read_text())['heads']
"""The losses under heads in the packages' own configs: places, host classes and uses (see ``census.py``)."""


def test_heads_of_nearly_all_uses_are_known():
    """The share is of all losses in these configs, including those without a stand-in."""
    uses = known = 0
    for place, hosts in CENSUS.items():
        package, name, option = place.split('.', 2)
        count = sum(hosts.values())
        uses += count
        known += count if in_table(Head(f'{package}.{name}', option, {})) else 0
    assert uses > 8000
    assert known >= 0.95 * uses
