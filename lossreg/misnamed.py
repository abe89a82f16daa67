"""Distinguishes a misspelt loss in a config from types that are not losses and from third parties' losses."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable

from lossreg.hosts import stand_ins
from lossreg.registry import load_losses

LOSS_KEY = re.compile(r'(\w+_)?loss(es)?(_\w+)?')
"""The keys that hold losses: ``loss``, ``loss_cls``, ``distill_losses``, ``gan_loss``."""

FREE_KEYS = re.compile(r'\w*(connectors|recorders)')
"""The keys whose entries are named freely by a config: mmrazor's connectors may be named after their losses."""

LOSS_WORD = re.compile('loss|divergence|penalty|regulari[sz]er', re.IGNORECASE)
"""A pattern in the names of third parties' losses."""

ENOUGH = 0.82
"""How similar a misspelt name is to the right one, by difflib's ratio."""


class KnownNames:
    """The names of all registered losses: ours, and the host classes that ours stand in for."""

    def __init__(self) -> None:
        self._ours = tuple(load_losses())
        self._hosts: dict[str, list[str]] = {}
        for host in stand_ins():
            package, _, name = host.partition('.')
            self._hosts.setdefault(package, []).append(name)
        self._anywhere = {*self._ours, *(name for names in self._hosts.values() for name in names)}

    def holds(self, name: str, package: str) -> bool:
        """Whether a loss in any package has this name, so that it is not a misspelling of another."""
        return name in (self._ours if package == 'lossreg' else self._anywhere)

    def fault_of(self, name: str, package: str, is_wanted: bool) -> str:
        """What is wrong with a type that is not known as a loss; empty if it need not be a loss.

        Args:
            name: the type without its package.
            package: the package whose registry resolves it; empty for ours.
            is_wanted: whether it must be a loss, by its place or its scope.
        """
        if package not in ('', 'lossreg', *self._hosts):
            return ''  # a package that lossreg does not know
        whose = f'{package}.{name}' if package else name
        near = _misspelt(name, [*self._hosts.get(package, ()), *self._ours])
        if near:
            return f'no loss is known as {whose}; did you mean {near!r}?'
        if is_wanted:
            return f'no loss is known as {whose}; see `lossreg list`; write the package of your own before it'
        return ''


def _misspelt(name: str, known: Iterable[str]) -> str:
    """The known name that this one misspells; empty for none.

    A name that differs in capitals or digits is not a misspelling: MyFocalLoss, FocalLossV2, or WIoULoss against
    SIoULoss.
    """
    folded = {other.casefold(): other for other in known if other != name}
    for near in difflib.get_close_matches(name.casefold(), folded, n=3, cutoff=ENOUGH):
        other = folded[near]
        slips = difflib.SequenceMatcher(None, name.casefold(), near).get_opcodes()
        changed = ''.join(name[a:b] + other[c:d] for tag, a, b, c, d in slips if tag != 'equal')
        if not any(character.isupper() or character.isdigit() for character in changed):
            return other
    return ''
