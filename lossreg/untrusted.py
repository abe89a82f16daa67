"""Reads untrusted files: bounded in size, only regular files, and never executed.

Manifests, metadata, and configs in YAML and JSON are data. Whatever they contain, reading them gives plain values or a
one-line ConfigError. Paths named in data must stay inside a folder.
"""

from __future__ import annotations

import io
import json
import math
import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from lossreg.errors import ConfigError

MAX_TEXT = 64 << 20
"""The limit in bytes of a text file, a hundred times the manifest of all losses in every form."""

MAX_FILE = (2 << 30) - 1
"""The limit in bytes of any file: an ONNX file cannot be larger."""

MAX_DEPTH = 100
"""Dicts and lists inside each other."""

MAX_VALUES = 1_000_000
"""The limit on values of one text, counting those that YAML repeats each time."""

MAX_INTEGER = 2**63


def read_file(path: Path, limit: int = MAX_FILE, what: str = '') -> bytes:
    """The bytes of a regular file.

    Args:
        path: the file; a symlink is followed.
        limit: larger files are refused before anything is read.
        what: the name in error messages; the path by default.

    Raises:
        ConfigError: it does not exist, is not a regular file, cannot be read or is too large.
    """
    name = what or str(path)
    try:
        # opening a pipe would wait for a writer
        handle = os.open(path, os.O_RDONLY | getattr(os, 'O_NONBLOCK', 0) | getattr(os, 'O_BINARY', 0))
    except (OSError, ValueError) as error:
        reason = getattr(error, 'strerror', None) or str(error)
        raise ConfigError(f'{name} cannot be read: {reason}') from error
    state = os.fstat(handle)
    if not stat.S_ISREG(state.st_mode):
        os.close(handle)
        raise ConfigError(f'{name} is not a regular file')
    with os.fdopen(handle, 'rb') as file:
        if state.st_size > limit:
            raise ConfigError(f'{name} holds {state.st_size} bytes, but at most {limit} are read')
        try:
            data = file.read(limit + 1)
        except OSError as error:
            raise ConfigError(f'{name} cannot be read: {error.strerror}') from error
    if len(data) > limit:
        raise ConfigError(f'{name} holds more than {limit} bytes')
    return data


def inside(folder: Path, name: str) -> Path:
    """The path that a file in ``folder`` names; it must be in that folder or below, with symlinks followed.

    Raises:
        ConfigError: the name leads elsewhere, or is not a valid path.
    """
    shown = name if len(name) < 100 else f'{name[:100]}...'
    try:
        path = folder / name
        leads_out = not Path(os.path.realpath(path)).is_relative_to(os.path.realpath(folder))
    except (OSError, ValueError) as error:
        raise ConfigError(f'{shown!r} cannot be the name of a file: {error}') from error
    if leads_out or os.path.isabs(name) or not name:
        raise ConfigError(f'{shown!r} is outside the folder {folder}; data may name only files in its folder or below')
    return path


def parse_json(data: bytes | str, what: str, finite: bool = True) -> Any:
    """Plain values of a JSON text.

    Args:
        data: the text, as UTF-8 where it is bytes.
        what: the name in error messages.
        finite: whether ``NaN`` and ``Infinity``, which are not JSON, are refused.

    Raises:
        ConfigError: it is not JSON, holds a key twice, is too large or too deep, or has an integer beyond 64 bits.
    """
    if len(data) > MAX_TEXT:
        raise ConfigError(f'{what} holds more than {MAX_TEXT} bytes')
    try:
        text = data.decode('utf-8') if isinstance(data, bytes) else data
        options: dict[str, Any] = {'parse_constant': _refuse_constant} if finite else {}
        value = json.loads(text, object_pairs_hook=_without_doubles, parse_float=_float, **options)
    except RecursionError as error:
        raise ConfigError(f'{what} is nested more than {MAX_DEPTH} deep') from error
    except ValueError as error:
        raise ConfigError(f'{what} is not valid JSON: {error}') from error
    _check_values(value, what)
    return value


def _refuse_constant(text: str) -> None:
    raise ValueError(f'{text} is not a number in JSON')


def _float(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise ValueError(f'{text[:40]} is too large')
    return value


def _without_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f'{next(name for name in names if names.count(name) > 1)!r} appears twice in one object')
    return found


def _check_values(value: Any, what: str) -> None:
    """Raises ConfigError if there are too many values, they are nested too deep, or an integer is too large."""
    layer, count = [value], 0
    for _ in range(MAX_DEPTH + 1):
        count += len(layer)
        if count > MAX_VALUES:
            raise ConfigError(f'{what} holds more than {MAX_VALUES} values')
        if any(isinstance(item, int) and abs(item) >= MAX_INTEGER for item in layer):
            raise ConfigError(f'{what} holds an integer that is larger than 64 bits')
        below: list[Any] = []
        for item in layer:
            if isinstance(item, (dict, list, tuple)):
                below += item.values() if isinstance(item, dict) else item
        if not below:
            return
        layer = below
    raise ConfigError(f'{what} is nested more than {MAX_DEPTH} deep')


def parse_yaml(data: bytes, what: str) -> Any:
    """Plain values of a YAML text; tags for anything else are refused.

    Raises:
        ConfigError: it is not YAML, holds a key twice or a Python tag, is too large or too deep, or expands too much
            through aliases.
    """
    import yaml

    loader = _yaml_loader()
    try:
        text = data.decode('utf-8')
        _check_events(yaml.parse(text, Loader=loader), what)
        value = yaml.load(text, Loader=loader)
    except yaml.constructor.ConstructorError as error:
        reason = str(error.problem or error)
        if 'tag' in reason:
            reason += '; YAML is data and makes plain values only: write the value itself, or the config in Python'
        raise ConfigError(f'{what} cannot be read{_place(error)}: {reason}') from error
    except yaml.MarkedYAMLError as error:
        raise ConfigError(f'{what} is not valid YAML{_place(error)}: {error.problem or error.context}') from error
    except (yaml.YAMLError, ValueError, TypeError, OverflowError, RecursionError) as error:
        first = next(iter(str(error).splitlines()), '')
        raise ConfigError(f'{what} is not valid YAML: {first}') from error
    _check_values(value, what)
    return value


def _place(error: Any) -> str:
    return f' in line {error.problem_mark.line + 1}' if error.problem_mark is not None else ''


@cache
def _yaml_loader() -> Any:
    """PyYAML's loader of plain values, which also refuses duplicate keys."""
    import yaml

    class Loader(getattr(yaml, 'CSafeLoader', yaml.SafeLoader)):  # type: ignore[misc]
        def construct_mapping(self, node: Any, deep: bool = False) -> Any:
            keys = [(key.tag, key.value) for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
            for key in keys:
                if keys.count(key) > 1 and key[0] != 'tag:yaml.org,2002:merge':
                    raise yaml.constructor.ConstructorError(None, None, f'{key[1]!r} appears twice', node.start_mark)
            return super().construct_mapping(node, deep)

    return Loader


def _check_events(events: Iterator[Any], what: str) -> None:
    """Raises ConfigError if YAML is too deep or, with aliases expanded, too large, before anything is constructed.

    An alias counts as many values as it repeats.
    """
    import yaml

    sizes: dict[str, int] = {}
    open_: list[tuple[str, int]] = []  # the anchor of each open collection, and the count before it
    count = 0
    for event in events:
        if isinstance(event, yaml.AliasEvent):
            if event.anchor in {anchor for anchor, _ in open_}:
                raise ConfigError(f'{what} repeats {event.anchor!r} inside itself')
            count += sizes.get(event.anchor, 1)
        elif isinstance(event, yaml.ScalarEvent):
            count += 1
            sizes[event.anchor or ''] = 1
        elif isinstance(event, yaml.CollectionStartEvent):
            open_.append((event.anchor or '', count))
            count += 1
            if len(open_) > MAX_DEPTH:
                raise ConfigError(f'{what} is nested more than {MAX_DEPTH} deep')
        elif isinstance(event, yaml.CollectionEndEvent):
            anchor, before = open_.pop()
            sizes[anchor] = count - before
        if count > MAX_VALUES:
            raise ConfigError(f'{what} holds more than {MAX_VALUES} values, its aliases written out')


_folder_of_data: ContextVar[Path | None] = ContextVar('folder_of_data', default=None)


@contextmanager
def built_from_data(folder: Path | None) -> Iterator[None]:
    """A context in which losses are built from data in a folder: files named in options must be data in it too.

    With None, or outside this context, options come from Python, and files are read as in the hosts.
    """
    token = _folder_of_data.set(folder)
    try:
        yield
    finally:
        _folder_of_data.reset(token)


def read_weight(path: str) -> Any:
    """The numbers of a weight that a config names as a file: npy, json or yaml, or, from Python, also pkl.

    Raises:
        ConfigError: data names it, and it is not data in its folder.
        ValueError: it does not hold numbers.
        OSError: it cannot be read.
    """
    folder = _folder_of_data.get()
    suffix = os.path.splitext(path)[1]
    if folder is None and suffix not in ('.npy', '.yaml', '.yml'):
        from lossreg.engine import load

        return load(path)
    if suffix not in ('.npy', '.json', '.yaml', '.yml'):
        raise ConfigError(
            f'{path} is not read, because data names it: it may be npy, json or yaml, but a pickle or Python would run '
            'code; write the numbers themselves, or the config in Python'
        )
    if folder is None:
        with open(path, 'rb') as file:
            data = file.read()
    else:
        data = read_file(_weight_of_data(folder, path))
    if suffix != '.npy':
        value = parse_json(data, path) if suffix == '.json' else parse_yaml(data, path)
    else:
        try:
            value = np.load(io.BytesIO(data), allow_pickle=False)
        except Exception as error:  # a damaged file may make NumPy raise anything
            raise ValueError(f'{path} cannot be read as an array: {error}') from error
    if not _is_numbers(value):
        raise ConfigError(f'{path} must hold a number or lists of numbers')
    return value


def _weight_of_data(folder: Path, path: str) -> Path:
    """The file relative to the working directory, as training would read it, or else to the config that names it."""
    if not os.path.exists(path):
        return inside(folder, path)
    if not Path(os.path.realpath(path)).is_relative_to(os.path.realpath(folder)):
        raise ConfigError(
            f'{path} is outside the folder {folder} of the config that names it; move it there, write the numbers '
            'themselves, or the config in Python'
        )
    return Path(path)


def _is_numbers(value: Any) -> bool:
    if isinstance(value, (list, tuple)):
        return all(_is_numbers(item) for item in value)
    if isinstance(value, np.ndarray):
        return value.dtype.kind in 'fiub'
    return isinstance(value, (int, float))


def field(data: Mapping[str, Any], name: str, kind: type | tuple[type, ...]) -> Any:
    """A value of a JSON object.

    Raises:
        ConfigError: it is missing or has another type; True is not an integer.
    """
    if name not in data:
        raise ConfigError(f'{name} is missing')
    value = data[name]
    kinds = kind if isinstance(kind, tuple) else (kind,)
    if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
        names = ' or '.join(TYPES[k] for k in kinds)
        raise ConfigError(f'{name} is {TYPES.get(type(value), type(value).__name__)}, but must be {names}')
    return value


TYPES: Mapping[type, str] = {
    str: 'a string', bool: 'true or false', int: 'an integer', float: 'a number', dict: 'an object', list: 'a list',
    type(None): 'null',
}  # fmt: skip
