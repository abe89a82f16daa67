"""Tells a misspelt loss in a config from a type that is none, or that is somebody else's."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable

from lossreg.hosts import stand_ins
from lossreg.registry import load_losses

LOSS_KEY = re.compile(r'(\w+_)?loss(es)?(_\w+)?')
"""The keys that losses stand under: ``loss``, ``loss_cls``, ``distill_losses``, ``gan_loss``."""

FREE_KEYS = re.compile(r'\w*(connectors|recorders)')
"""What holds parts under names that a config makes up: mmrazor's connectors may be named after their losses."""

LOSS_WORD = re.compile('loss|divergence|penalty|regulari[sz]er', re.IGNORECASE)
"""What stands in the name of a loss of somebody's own."""

ENOUGH = 0.82
"""How alike a misspelt name is to the right one, as difflib measures it."""


class KnownNames:
    """The names of all losses, ours and those that ours stand in for, as they are registered now."""

    def __init__(self) -> None:
        self._ours = tuple(load_losses())
        self._hosts: dict[str, list[str]] = {}
        for host in stand_ins():
            package, _, name = host.partition('.')
            self._hosts.setdefault(package, []).append(name)
        self._anywhere = {*self._ours, *(name for names in self._hosts.values() for name in names)}

    def holds(self, name: str, package: str) -> bool:
        """Whether a loss has this name, in whatever package: it is no slip of another, then."""
        return name in (self._ours if package == 'lossreg' else self._anywhere)

    def fault_of(self, name: str, package: str, is_wanted: bool) -> str:
        """What is wrong with a type that is not known as a loss; empty where it may be anything.

        Args:
            name: the type without its package.
            package: the package whose registry resolves it; empty for ours.
            is_wanted: whether it must be a loss, by its place or its scope.
        """
        if package not in ('', 'lossreg', *self._hosts):
            return ''  # a package that nothing is known of
        whose = f'{package}.{name}' if package else name
        near = _misspelt(name, [*self._hosts.get(package, ()), *self._ours])
        if near:
            return f'no loss is known as {whose}; did you mean {near!r}?'
        if is_wanted:
            return f'no loss is known as {whose}; see `lossreg list`; write the package of your own before it'
        return ''


def _misspelt(name: str, known: Iterable[str]) -> str:
    """The known name that this one is a slip of; empty for none.

    What differs by capitals or digits is another name: MyFocalLoss, FocalLossV2, and WIoULoss beside SIoULoss.
    """
    folded = {other.casefold(): other for other in known if other != name}
    for near in difflib.get_close_matches(name.casefold(), folded, n=3, cutoff=ENOUGH):
        other = folded[near]
        slips = difflib.SequenceMatcher(None, name.casefold(), near).get_opcodes()
        changed = ''.join(name[a:b] + other[c:d] for tag, a, b, c, d in slips if tag != 'equal')
        if not any(character.isupper() or character.isdigit() for character in changed):
            return other
    return ''
