"""The optimizers of a training step, as functions, against torch.optim."""

import pytest
import torch

from lossreg.errors import ConfigError
from lossreg.optimizers import RULES, optimizer

START = torch.tensor([1.0, -2.0, 0.5, 3.0], dtype=torch.float64)
GRADIENTS = torch.tensor([0.3, -0.7, 1e-9, 0.0], dtype=torch.float64) * torch.tensor([[1.0], [-0.5], [2.0], [0.1]])
"""Four steps; the third element is so small that Adam's eps counts."""


@pytest.mark.parametrize(
    'cfg',
    [
        {'type': 'SGD'},
        {'type': 'SGD', 'lr': 0.1, 'weight_decay': 0.2},
        {'type': 'SGD', 'lr': 0.1, 'momentum': 0.9},
        {'type': 'SGD', 'lr': 0.1, 'momentum': 0.9, 'dampening': 0.3, 'weight_decay': 0.2},
        {'type': 'SGD', 'lr': 0.1, 'momentum': 0.9, 'weight_decay': 0.2, 'nesterov': True},
        {'type': 'Adam'},
        {'type': 'Adam', 'lr': 0.1, 'betas': (0.8, 0.95), 'eps': 1e-3, 'weight_decay': 0.2},
        {'type': 'AdamW'},
        {'type': 'AdamW', 'lr': 0.1, 'betas': (0.8, 0.95), 'eps': 1e-3, 'weight_decay': 0.0},
    ],
    ids=lambda cfg: '-'.join(cfg.values() if len(cfg) == 1 else cfg),
)
def test_four_steps_are_torchs(cfg):
    rule, options = optimizer(cfg)
    given = {key: value for key, value in cfg.items() if key != 'type'}
    wanted = START.clone().requires_grad_()
    torch_optimizer = getattr(torch.optim, cfg['type'])([wanted], **given)
    p, slots = START, {name: torch.zeros_like(START) for name in rule.slots(options)}
    lr = torch.tensor(options['lr'], dtype=torch.float64)
    for step, gradient in enumerate(GRADIENTS):
        wanted.grad = gradient.clone()
        torch_optimizer.step()
        p, slots = rule.update(p, gradient, slots, lr, options['weight_decay'], torch.tensor(step), options)
        torch.testing.assert_close(p, wanted.detach(), rtol=1e-12, atol=0.0)
    assert not torch.equal(p, START)


@pytest.mark.parametrize('name', RULES)
def test_defaults_are_torchs(name):
    _, options = optimizer({'type': name})
    defaults = getattr(torch.optim, name)([torch.zeros(1)]).defaults
    assert options == {key: defaults[key] for key in options}


@pytest.mark.parametrize(
    ('cfg', 'message'),
    [
        (['SGD'], 'got list'),
        ({'lr': 0.1}, "'None'; use SGD, Adam, AdamW"),
        ({'type': 'Adam', 'amsgrad': True}, "no option 'amsgrad'"),
        ({'type': 'Adam', 'betas': (0.9,)}, 'Adam refuses'),
        ({'type': 'Adam', 'eps': 'small'}, 'Adam refuses'),
        ({'type': 'AdamW', 'betas': (0.9, 1.0)}, 'AdamW refuses'),
    ],
)
def test_what_torch_refuses_is_refused(cfg, message):
    with pytest.raises(ConfigError, match=message):
        optimizer(cfg)
