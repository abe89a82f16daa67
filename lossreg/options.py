"""Checks and conversions of constructor options."""

import warnings
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from lossreg.arith import upcast
from lossreg.untrusted import read_weight


def legacy_reduction(size_average: bool | None, reduce: bool | None, reduction: str) -> str:
    """The reduction that torch's deprecated pair of arguments means; ``reduction`` where neither is given.

    ``reduce=False`` means ``none``, ``size_average=False`` means ``sum``; if only one is given, the other counts as
    True. For constructors only: it warns, which TorchScript cannot.
    """
    check_reduction(reduction)
    if size_average is None and reduce is None:
        return reduction
    meant = 'none' if reduce is False else 'sum' if size_average is False else 'mean'
    warnings.warn(
        f"size_average and reduce are deprecated, write reduction='{meant}'", DeprecationWarning, stacklevel=3
    )
    return meant


def as_weight(weight: Tensor | float | str | Sequence[Any] | None) -> Tensor | None:
    """Converts a weight option to a tensor for a buffer. For constructors only.

    The option is a number, a list, a tensor, or the path of a file that holds one: npy, pkl, json or yaml. A pkl can
    run code, so it is read only if the path comes from Python, not from data.
    """
    if isinstance(weight, str):
        weight = read_weight(weight)
    return None if weight is None else upcast(torch.as_tensor(weight))


def allow_missing(module: nn.Module, *names: str) -> None:
    """Lets a module load checkpoints that lack these buffers, which then keep their values. For constructors only.

    Hosts that keep such a number outside their checkpoints do not save it, nor did earlier versions of the loss.
    """
    register: Any = module._register_load_state_dict_pre_hook  # its public name is newer than torch 2.1
    register(partial(_fill_missing, names), with_module=True)


def _fill_missing(
    names: Sequence[str], module: nn.Module, state_dict: dict[str, Any], prefix: str, *unused: object
) -> None:
    for name in names:
        value = getattr(module, name)
        if value is not None:
            state_dict.setdefault(prefix + name, value)


def check_reduction(reduction: str) -> None:
    """Raises ValueError unless ``reduction`` is ``none``, ``mean`` or ``sum``."""
    if reduction != 'none' and reduction != 'mean' and reduction != 'sum':
        raise ValueError(f"reduction must be 'none', 'mean' or 'sum', got '{reduction}'")


def check_positive(value: float, name: str) -> None:
    """Raises ValueError unless an option is above 0."""
    if not value > 0:
        raise ValueError(f'{name} must be > 0, got {value}')


def check_angle(value: float, limit: float, name: str) -> None:
    """Raises ValueError unless an angular option lies in [0, limit]."""
    if not 0 <= value <= limit:
        raise ValueError(f'{name} must be an angle from 0 to {limit:.6g}, got {value}')


def check_balance(reduction: str, negative_ratio: float, fallback_negative_num: int) -> None:
    """Raises ValueError unless the options of mmocr's balanced losses are valid."""
    if reduction != 'none':
        raise ValueError(f"only reduction='none' balances elements, which is mmocr's default; got '{reduction}'")
    if negative_ratio < 0 or fallback_negative_num < 0:
        raise ValueError(
            f'negative_ratio and fallback_negative_num must be >= 0, got {negative_ratio} and {fallback_negative_num}'
        )


def check_momentum(momentum: float) -> None:
    """Raises ValueError unless ``momentum`` is in [0, 1]."""
    if not 0.0 <= momentum <= 1.0:
        raise ValueError(f'momentum must be in [0, 1], got {momentum}')


def check_none_or_mean(reduction: str) -> None:
    """Raises ValueError unless ``reduction`` is ``none`` or ``mean``."""
    if reduction != 'none' and reduction != 'mean':
        raise ValueError(f"reduction must be 'none' or 'mean', here as in mmdet, got '{reduction}'")


def check_class_count(num_classes: int, head: int | None = None) -> None:
    """Raises ValueError unless ``num_classes`` was given and equals the ``head``'s."""
    if num_classes == -1:
        raise ValueError('num_classes is missing; build the loss with the number of classes of the head')
    if head is not None and head != num_classes:
        raise ValueError(f'the loss is built for num_classes={num_classes}, the head has {head}')


def check_not_negative(value: float, name: str) -> None:
    """Raises ValueError if an option is below 0."""
    if value < 0:
        raise ValueError(f'{name} must be >= 0, got {value}')
