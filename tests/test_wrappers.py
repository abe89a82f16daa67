"""Losses that hold those of a host's configs: what their plain names mean, and what cannot be exported."""

import pytest
import torch

import lossreg
from lossreg.config import requests_for
from lossreg.errors import ConfigError
from lossreg.request import Request

BCE = {'type': 'lossreg.PoseBCELoss'}
CONFIG = """
default_scope = 'mmpose'
model = dict(head=dict(loss=dict(type='{type}', losses={losses})))
"""


def wrapper(*losses):
    return lossreg.build_loss({'type': 'MultipleLossWrapper', 'losses': list(losses)})


@pytest.mark.parametrize(
    ('type', 'losses'),
    [
        ('MultipleLossWrapper', [{'type': 'BCELoss', 'use_target_weight': True}, {'type': 'JSDiscretLoss'}]),
        ('CombinedLoss', {'visibility': {'type': 'BCELoss'}, 'heatmap': {'type': 'JSDiscretLoss'}}),
    ],
)
def test_losses_inside_a_hosts_are_those_that_stand_in_for_its_own(tmp_path, type, losses):
    path = tmp_path / 'config.py'
    path.write_text(CONFIG.format(type=type, losses=losses))
    requests, left = requests_for(str(path))
    assert not left
    inner = requests[0].config['losses']
    types = [loss['type'] for loss in (inner if isinstance(inner, list) else inner.values())]
    assert types == ['lossreg.PoseBCELoss', 'lossreg.JSDiscretLoss']
    assert [request.host for request in requests] == [f'mmpose.{name}' for name in (type, 'BCELoss', 'JSDiscretLoss')]


def test_a_loss_inside_a_hosts_that_nothing_stands_in_for_is_an_error(tmp_path):
    path = tmp_path / 'config.py'
    path.write_text(CONFIG.format(type='MultipleLossWrapper', losses=[{'type': 'UnheardOfLoss'}]))
    _, left = requests_for(str(path))
    assert 'nothing stands in for mmpose.UnheardOfLoss, which is part of this loss' in left[0].reason
    assert left[0].is_error


@pytest.mark.parametrize('config', [{'type': 'MultipleLossWrapper', 'losses': [{'type': 'BCELoss'}]},
                                    {'type': 'CombinedLoss', 'losses': {'a': {'type': 'BCELoss'}}}])  # fmt: skip
def test_a_plain_name_that_means_two_losses_is_refused(config):
    with pytest.raises(
        ConfigError, match=r'BCELoss means mmpose.BCELoss here; write lossreg.PoseBCELoss, or lossreg.BCELoss'
    ):
        lossreg.build_loss(config)


def test_plain_names_of_one_meaning_are_taken():
    assert type(wrapper({'type': 'JSDiscretLoss'}).loss_modules[0]) is lossreg.JSDiscretLoss


def test_every_loss_has_an_input_and_a_target():
    x = torch.zeros(2, 3)
    with pytest.raises(ValueError, match='there are 2 losses, but 1 inputs and 2 targets'):
        wrapper(BCE, BCE)([x], [x, x])


def test_losses_of_pairs_work_in_eager_mode_alone():
    loss = wrapper({'type': 'lossreg.KLDiscretLoss'}, BCE)
    x, weight = torch.rand(2, 3, 4), torch.ones(2, 3)
    pair, score = (x, x), torch.rand(2, 3)
    expected = lossreg.build_loss('KLDiscretLoss')(pair, pair, weight)
    assert loss([pair, score], [pair, score], weight)[0] == expected
    with pytest.raises(ConfigError, match='MultipleLossWrapper with this config has no call'):
        Request.of(loss).calls()


def test_inputs_are_numbered_and_weights_shared():
    (call,) = Request.of(wrapper({**BCE, 'use_target_weight': True}, {'type': 'lossreg.JSDiscretLoss'})).calls()
    assert [(i.name, i.shape) for i in call.inputs] == [
        ('output_0', 'N K'),
        ('target_0', 'N K'),
        ('keypoint_weights', 'N K'),
        ('pred_hm_1', 'N K H W'),
        ('gt_hm_1', 'N K H W'),
    ]
    assert call.outputs == ('loss_0', 'loss_1')


def test_combined_losses_are_reached_by_name():
    combined = lossreg.build_loss({'type': 'CombinedLoss', 'losses': {'a': BCE, 'b': {'type': 'lossreg.InfoNCELoss'}}})
    assert list(combined) == ['a', 'b']
    assert len(combined) == 2
    assert combined['b'] is combined.b is dict(combined.items())['b']
    assert [call.name for call in Request.of(combined).calls()] == ['a.logits', 'b.features']
