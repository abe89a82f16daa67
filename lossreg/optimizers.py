"""The optimizers of a training step, as functions of tensors that a graph can hold.

Each gives the numbers of the ``torch.optim`` class of the same name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lossreg.errors import ConfigError

Slots = dict[str, Tensor]


@dataclass(frozen=True)
class Rule:
    """How one kind of optimizer updates a parameter.

    Attributes:
        options: the hyperparameters and their defaults.
        slots: the names of the tensors kept for each parameter; they start as zeros.
        update: the new parameter and slots, from the parameter, its gradient, the slots, the learning rate, the weight
            decay, the step number (from 0, int64) and the options.
    """

    options: Mapping[str, Any]
    slots: Callable[[Mapping[str, Any]], tuple[str, ...]]
    update: Callable[[Tensor, Tensor, Slots, Tensor, float, Tensor, Mapping[str, Any]], tuple[Tensor, Slots]]


def sgd(
    p: Tensor, g: Tensor, slots: Slots, lr: Tensor, weight_decay: float, step: Tensor, options: Mapping[str, Any]
) -> tuple[Tensor, Slots]:
    """g' = g + decay p;  b' = g' at first, then momentum b + (1 - dampening) g';  p' = p - lr b'."""
    momentum = options['momentum']
    if weight_decay:
        g = g + weight_decay * p
    if not momentum:
        return p - lr * g, {}
    buffer = momentum * slots['momentum_buffer'] + (1 - options['dampening']) * g
    buffer = torch.where(step == 0, g, buffer)
    # nesterov looks ahead: g' + momentum b'
    direction = g + momentum * buffer if options['nesterov'] else buffer
    return p - lr * direction, {'momentum_buffer': buffer}


def adamw(
    p: Tensor, g: Tensor, slots: Slots, lr: Tensor, weight_decay: float, step: Tensor, options: Mapping[str, Any]
) -> tuple[Tensor, Slots]:
    """p' = (1 - lr decay) p - lr m̂ / (sqrt(v̂) + eps), with the bias-corrected means m̂ and v̂ of g and g²."""
    return adam(p - (lr * weight_decay) * p if weight_decay else p, g, slots, lr, 0.0, step, options)


def adam(
    p: Tensor, g: Tensor, slots: Slots, lr: Tensor, weight_decay: float, step: Tensor, options: Mapping[str, Any]
) -> tuple[Tensor, Slots]:
    """g' = g + decay p;  p' = p - lr m̂ / (sqrt(v̂) + eps)."""
    beta1, beta2 = options['betas']
    if weight_decay:
        g = g + weight_decay * p
    mean = slots['exp_avg'] + (1 - beta1) * (g - slots['exp_avg'])
    square = beta2 * slots['exp_avg_sq'] + (1 - beta2) * g * g
    # in float64: 1 - 0.999 loses four digits in float32
    number = step.double() + 1.0
    correction1, correction2 = 1.0 - beta1**number, 1.0 - beta2**number
    denominator = square.sqrt() / correction2.sqrt().to(p.dtype) + options['eps']
    moved = p - (lr / correction1.to(p.dtype)) * mean / denominator
    return moved, {'exp_avg': mean, 'exp_avg_sq': square}


ADAM_OPTIONS = {'lr': 1e-3, 'betas': (0.9, 0.999), 'eps': 1e-8}

RULES = {
    'SGD': Rule(
        {'lr': 1e-3, 'momentum': 0.0, 'dampening': 0.0, 'weight_decay': 0.0, 'nesterov': False},
        lambda options: ('momentum_buffer',) if options['momentum'] else (),
        sgd,
    ),
    'Adam': Rule({**ADAM_OPTIONS, 'weight_decay': 0.0}, lambda options: ('exp_avg', 'exp_avg_sq'), adam),
    'AdamW': Rule({**ADAM_OPTIONS, 'weight_decay': 1e-2}, lambda options: ('exp_avg', 'exp_avg_sq'), adamw),
}


def optimizer(cfg: Mapping[str, Any]) -> tuple[Rule, dict[str, Any]]:
    """The rule of a config such as ``dict(type='AdamW', lr=1e-3)``, and its options with defaults filled in.

    Raises:
        ConfigError: an unknown type or option, or a value that torch rejects.
    """
    if not isinstance(cfg, Mapping):
        raise ConfigError(f"optimizer_cfg is a config such as dict(type='SGD', lr=0.1), got {type(cfg).__name__}")
    given = {key: value for key, value in cfg.items() if key != 'type'}
    name = str(cfg.get('type'))
    if name not in RULES:
        raise ConfigError(f'a training step cannot hold the optimizer {name!r}; use {", ".join(RULES)}')
    rule = RULES[name]
    unknown = sorted(given.keys() - rule.options.keys())
    if unknown:
        raise ConfigError(f'{name} in a training step has no option {unknown[0]!r}; it takes {", ".join(rule.options)}')
    options = {**rule.options, **given}
    try:  # torch checks the values
        getattr(torch.optim, name)([torch.zeros(1)], **options)
    except (TypeError, ValueError, IndexError) as error:
        raise ConfigError(f'{name} refuses its options: {error}') from error
    return rule, options
