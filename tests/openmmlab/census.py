"""Counts what the configs shipped with the OpenMMLab packages use: every loss class, with every set of arguments.

Usage: census.py FILE, in the environment that install.sh makes. ``docs/host_classes.json`` is such a file: the tables
of ``make docs`` and the pairs that the host tests compare are made from it.
"""

import importlib.util
import inspect
import json
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import shim

shim.install()

from mmengine.config import Config  # noqa: E402
from packages import HOSTS, losses_of  # noqa: E402
from rich.progress import track  # noqa: E402
from torch import nn  # noqa: E402


def loss_classes() -> dict[str, type[nn.Module]]:
    """Every loss class that a package defines and registers, by its full name."""
    found = {}
    for package in HOSTS:
        for name, cls in inspect.getmembers(losses_of(package), inspect.isclass):
            if issubclass(cls, nn.Module) and cls.__module__.startswith(f'{package}.') and 'loss' in cls.__module__:
                found[f'{package}.{name}'] = cls
    return found


def config_files() -> list[tuple[str, Path]]:
    """The configs of every package's wheel."""
    return [
        (package, path)
        for package in HOSTS
        for path in sorted((Path(importlib.util.find_spec(package).origin).parent / '.mim/configs').rglob('*.py'))
    ]


def uses(config: Mapping[str, Any], scope: str, known: Mapping[str, type]) -> Iterator[tuple[str, str]]:
    """The loss dicts of a config: the class each means, and its arguments as JSON."""
    for node, inner in _dicts(config, scope):
        kind = node.get('type')
        if isinstance(kind, type):
            package, name = kind.__module__.partition('.')[0], kind.__name__
        elif isinstance(kind, str):
            package, name = kind.split('.')[0] if '.' in kind else '', kind.rpartition('.')[2]
        else:
            continue
        full = f'{package or inner}.{name}'
        if full in known:
            arguments = {key: value for key, value in node.items() if key not in ('type', '_scope_', '_delete_')}
            yield full, json.dumps(arguments, sort_keys=True, default=str)


def _dicts(node: Any, scope: str) -> Iterator[tuple[Mapping[str, Any], str]]:
    """All dicts, with the scope that mmengine builds them in: their own, or that of one around them."""
    if isinstance(node, Mapping):
        scope = node.get('_scope_', scope)
        yield node, scope
        for value in node.values():
            yield from _dicts(value, scope)
    elif isinstance(node, (list, tuple)):
        for value in node:
            yield from _dicts(value, scope)


def census() -> dict[str, Any]:
    """All loss classes, with the number of uses of each set of arguments; and how many configs were read."""
    known = loss_classes()
    counts: Counter[tuple[str, str]] = Counter()
    read = 0
    unread = []
    for package, path in track(config_files(), 'configs'):
        try:
            config = Config.fromfile(path, import_custom_modules=False)
        except Exception as error:  # some refer to files that their wheel lacks
            unread.append(f'{package}: {type(error).__name__}')
            continue
        read += 1
        counts.update(uses(config.to_dict(), config.get('default_scope') or package, known))
    classes: dict[str, list[dict[str, Any]]] = {name: [] for name in known}
    for (name, arguments), count in sorted(counts.items(), key=lambda item: (-item[1], item[0])):
        classes[name].append({'uses': count, 'arguments': json.loads(arguments)})
    return {'configs': read, 'unread': dict(sorted(Counter(unread).items())), 'classes': dict(sorted(classes.items()))}


if __name__ == '__main__':
    found = census()
    Path(sys.argv[1]).write_text(json.dumps(found, indent=1) + '\n')
    total = sum(row['uses'] for rows in found['classes'].values() for row in rows)
    print(f'{found["configs"]} configs use {sum(map(bool, found["classes"].values()))} loss classes {total} times')
