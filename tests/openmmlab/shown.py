"""Demonstrations of deliberate differences from hosts: each is a test, and known to belong to a declared difference."""

from collections.abc import Callable

import pytest
from packages import host_class
from pairs import declared
from torch import nn

from lossreg.registry import load_losses

Demonstration = Callable[[type[nn.Module], type[nn.Module]], None]
SHOWN: list[tuple[str, str]] = []
"""The loss, and a part of its difference's description, of every demonstration imported so far."""


def shows(phrase: str, *losses: str) -> Callable[[Demonstration], Callable[[str], None]]:
    """Makes a test of what shows, for each of ``losses``, the difference whose description contains ``phrase``."""

    def decorate(demonstrate: Demonstration) -> Callable[[str], None]:
        SHOWN.extend((name, phrase) for name in losses)

        @pytest.mark.parametrize('name', losses)
        def test(name: str) -> None:
            differences = declared(name, phrase)
            assert differences, 'shown here, but not declared in the spec'
            for difference in differences:
                demonstrate(load_losses()[name], host_class(difference.host))

        test.__doc__ = demonstrate.__doc__
        return test

    return decorate
