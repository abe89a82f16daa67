"""Checkpoints can be exchanged between a loss and the torch.nn class that it replaces."""

import copy
import inspect
import io
import warnings

import pytest
import torch
from failures import Failures
from torch import nn
from units import LOSSES, REQUESTS, UNITS

from lossreg.registry import build_loss

TWINS = {
    name: getattr(nn, host.name.removeprefix('torch.'))
    for name, cls in LOSSES.items()
    for host in cls.spec.stands_in_for
    if host.name.startswith('torch.')
}


def test_there_are_twins_with_weights():
    holding = {twin.__name__ for name, twin in TWINS.items() if any(r.loss.state_dict() for r in REQUESTS[name])}
    assert {'CrossEntropyLoss', 'NLLLoss', 'BCELoss', 'BCEWithLogitsLoss'} < holding


KEPT_BY_HOSTS = {
    'GHMC': {'edges'}, 'GHMR': {'edges'}, 'OKSLoss': {'sigmas'}, 'OksLoss': {'sigmas'},
    'RLELoss': {'flow_model.loc', 'flow_model.cov', 'flow_model.mask'},
}  # fmt: skip
"""Constants that hosts hold as buffers, so that their checkpoints have them."""


def test_checkpoints_hold_parameters_state_and_what_hosts_keep():
    with Failures() as failures:
        for name in UNITS.keys() - TWINS.keys():
            for unit in UNITS[name]:
                with failures.of(f'{name} {unit.variant}'):
                    state = {i.name for i in unit.inputs if i.state}
                    buffers = unit.loss.state_dict().keys() - dict(unit.loss.named_parameters()).keys()
                    assert buffers - KEPT_BY_HOSTS.get(name, set()) == state


def theirs(cls, config):
    """torch.nn's loss with the same options; it takes weights as tensors and lacks a few options."""
    known = inspect.signature(cls).parameters
    options = {name: value for name, value in config.items() if name in known}
    tensors = {n: torch.tensor(v) for n, v in options.items() if n.endswith('weight') and isinstance(v, list)}
    with warnings.catch_warnings():
        warnings.simplefilter('ignore', UserWarning)  # torch warns about its deprecated arguments
        return cls(**{**options, **tensors})


@pytest.mark.parametrize('name', TWINS)
def test_both_ways(name):
    with Failures() as failures:
        for request in REQUESTS[name]:
            with failures.of(request.variant):
                ours, host = copy.deepcopy(request.loss), theirs(TWINS[name], request.config)
                with torch.no_grad():
                    for value in host.state_dict().values():
                        value.mul_(3.0)
                ours.load_state_dict(host.state_dict())
                assert list(ours.state_dict()) == list(host.state_dict())
                for key, value in host.state_dict().items():
                    assert torch.equal(ours.state_dict()[key], value), key
                theirs(TWINS[name], request.config).load_state_dict(request.loss.state_dict())


@pytest.mark.parametrize('prefix', ['', 'head.loss.'])
def test_checkpoints_without_the_weights_load(prefix):
    """Earlier versions wrote such checkpoints, of models too. Other missing or unknown keys are still errors."""
    loss = build_loss({'type': 'BCEWithLogitsLoss', 'weight': [2.0, 3.0], 'pos_weight': [4.0, 5.0]})
    model = nn.ModuleDict({'head': nn.ModuleDict({'loss': loss})}) if prefix else loss
    given = {}
    model.load_state_dict(given)
    assert not given
    assert loss.weight.tolist() == [2.0, 3.0]
    model.load_state_dict({f'{prefix}pos_weight': torch.tensor([6.0, 7.0])})
    assert (loss.weight.tolist(), loss.pos_weight.tolist()) == ([2.0, 3.0], [6.0, 7.0])
    with pytest.raises(RuntimeError, match='Unexpected key'):
        model.load_state_dict({f'{prefix}weights': torch.ones(2)})
    # the copy keeps its own values, not those of the original module
    twin = copy.deepcopy(loss)
    twin.weight.zero_()
    twin.load_state_dict({})
    assert twin.weight.tolist() == [0.0, 0.0]


def test_a_loss_without_weights_refuses_them_as_torch_does():
    for loss in (build_loss('NLLLoss'), nn.NLLLoss()):
        with pytest.raises(RuntimeError, match='Unexpected key'):
            loss.load_state_dict({'weight': torch.ones(3)})


def test_losses_that_may_lack_a_key_still_script():
    loss = torch.jit.script(build_loss({'type': 'NLLLoss', 'weight': [1.0, 2.0]}))
    saved = io.BytesIO()
    torch.jit.save(loss, saved)
    saved.seek(0)
    assert torch.jit.load(saved).weight.tolist() == [1.0, 2.0]
