"""Demonstrations of deliberate differences from the real OpenMMLab classes."""

from functools import partial

from demonstrations import shows as shows_with
from packages import host_class, is_installed
from torch import nn


def _class_of(difference, ours):
    """The host's class; None if its package is not installed."""
    package, name = difference.host.split('.')
    if package == 'torch':
        return getattr(nn, name)
    return host_class(difference.host) if is_installed(package) else None


shows = partial(shows_with, host_of=_class_of)
