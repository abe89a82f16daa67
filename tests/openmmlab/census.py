"""Counts the losses in the configs shipped with the OpenMMLab packages: every class, with every set of arguments.

It also lists the places in heads that hold them, such as ``mmseg.FCNHead.loss_decode``.

Usage: census.py FILE, in the environment that install.sh makes. ``docs/host_classes.json`` is such a file. The
tables of ``make docs`` and the pairs that the host tests compare derive from it.
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
    """All loss classes that a package defines and registers, by full name."""
    found = {}
    for package in HOSTS:
        for name, cls in inspect.getmembers(losses_of(package), inspect.isclass):
            if issubclass(cls, nn.Module) and cls.__module__.startswith(f'{package}.') and 'loss' in cls.__module__:
                found[f'{package}.{name}'] = cls
    return found


def config_files() -> list[tuple[str, Path]]:
    """The configs in every package's wheel."""
    return [
        (package, path)
        for package in HOSTS
        for path in sorted((Path(importlib.util.find_spec(package).origin).parent / '.mim/configs').rglob('*.py'))
    ]


def uses(config: Mapping[str, Any], scope: str, known: Mapping[str, type]) -> Iterator[tuple[str, str, str]]:
    """The loss dicts of a config: class, arguments as JSON, and place in the enclosing dict."""
    for node, full, place in _dicts(config, scope):
        if full in known:
            arguments = {key: value for key, value in node.items() if key not in ('type', '_scope_', '_delete_')}
            yield full, json.dumps(arguments, sort_keys=True, default=str), place


def _dicts(node: Any, scope: str, place: str = '') -> Iterator[tuple[Mapping[str, Any], str, str]]:
    """All dicts with a type, with its full name, the innermost enclosing dict with a type, and the path from there.

    A dict's ``_scope_`` applies to everything inside it, as in mmengine.
    """
    if isinstance(node, Mapping):
        scope = node.get('_scope_', scope)
        full = _full_name(node.get('type'), scope)
        if full:
            yield node, full, place
            place = full
        for key, value in node.items():
            yield from _dicts(value, scope, f'{place}.{key}' if place else '')
    elif isinstance(node, (list, tuple)):
        for value in node:
            yield from _dicts(value, scope, place)


def _full_name(kind: Any, scope: str) -> str:
    """The full name of a type; '' if it is not a name."""
    if isinstance(kind, type):
        return f'{kind.__module__.partition(".")[0]}.{kind.__name__}'
    if not isinstance(kind, str):
        return ''
    return f'{kind.split(".")[0]}.{kind.rpartition(".")[2]}' if '.' in kind else f'{scope}.{kind}'


def census() -> dict[str, Any]:
    """All loss classes with the number of uses of each set of arguments, and the number of configs read."""
    known = loss_classes()
    counts: Counter[tuple[str, str]] = Counter()
    places: Counter[tuple[str, str]] = Counter()
    read = 0
    unread = []
    for package, path in track(config_files(), 'configs'):
        try:
            config = Config.fromfile(path, import_custom_modules=False)
        except Exception as error:  # some name files that are not in their wheel
            unread.append(f'{package}: {type(error).__name__}')
            continue
        read += 1
        for name, arguments, place in uses(config.to_dict(), config.get('default_scope') or package, known):
            counts[name, arguments] += 1
            places[place, name] += 1
    classes: dict[str, list[dict[str, Any]]] = {name: [] for name in known}
    for (name, arguments), count in sorted(counts.items(), key=lambda item: (-item[1], item[0])):
        classes[name].append({'uses': count, 'arguments': json.loads(arguments)})
    heads: dict[str, dict[str, int]] = {}
    for (place, name), count in sorted(places.items()):
        heads.setdefault(place, {})[name] = count
    return {
        'configs': read,
        'unread': dict(sorted(Counter(unread).items())),
        'classes': dict(sorted(classes.items())),
        'heads': heads,
    }


if __name__ == '__main__':
    found = census()
    Path(sys.argv[1]).write_text(json.dumps(found, indent=1) + '\n')
    total = sum(row['uses'] for rows in found['classes'].values() for row in rows)
    print(f'{found["configs"]} configs use {sum(map(bool, found["classes"].values()))} loss classes {total} times')
