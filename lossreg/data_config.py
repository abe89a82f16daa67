"""Configs in YAML and JSON: parsed and merged with their bases as in mmengine, never executed.

Whatever mmengine would run is refused: bases in Python and ``custom_imports``. Placeholders that it would replace, such
as ``{{ fileBasename }}`` or ``{{$VARIABLE:default}}``, stay text.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

from lossreg.errors import ConfigError
from lossreg.untrusted import MAX_TEXT, inside, parse_json, parse_yaml, read_file

SUFFIXES = ('.yaml', '.yml', '.json')
BASE = '_base_'
DELETE = '_delete_'
HARMLESS_IMPORTS = ('lossreg.unscoped',)
"""What ``custom_imports`` may name in data; it defines the meaning of plain names and is not imported here."""

MAX_BASES = 100


def is_data(path: Path) -> bool:
    """Whether a config is data rather than Python."""
    return path.suffix in SUFFIXES


def read_data_config(path: Path) -> dict[str, Any]:
    """A config in YAML or JSON merged with its bases, which must be in its folder or below.

    Raises:
        ConfigError: it cannot be read, or would run code.
    """
    merged, _ = _with_bases(path, path.parent, ())
    return {key: value for key, value in merged.items() if not str(key).startswith('__')}


def _with_bases(path: Path, root: Path, above: tuple[str, ...]) -> tuple[dict[str, Any], int]:
    """A config merged with its bases, and the number of files read."""
    config = _parsed(path)
    _refuse_imports(config, path)
    given = config.pop(BASE, [])
    real = os.path.realpath(path)
    if real in above:
        raise ConfigError(f'{path} is a base of itself')
    merged: dict[str, Any] = {}
    count = 1
    for base in given if isinstance(given, list) else [given]:
        found, files = _with_bases(_base_path(base, path, root), root, (*above, real))
        count += files
        if count > MAX_BASES:
            raise ConfigError(f'{path} has more than {MAX_BASES} bases')
        doubles = sorted(map(str, merged.keys() & found.keys()))
        if doubles:
            raise ConfigError(f'{doubles[0]!r} appears in two bases of {path}')
        merged |= found
    return _merged(config, merged, str(path)), count


def _parsed(path: Path) -> dict[str, Any]:
    data = read_file(path, MAX_TEXT)
    config = parse_json(data, str(path), finite=False) if path.suffix == '.json' else parse_yaml(data, str(path))
    if not isinstance(config, dict):
        raise ConfigError(f'{path} cannot be read as a config: it must be a mapping')
    return config


def _refuse_imports(config: Mapping[str, Any], path: Path) -> None:
    """Raises ConfigError if a config asks for modules to be imported."""
    for key in config:
        if str(key).strip('_') in ('custom_imports', 'import', 'imports') and str(key) != 'imports':
            asked = config[key].get('imports', []) if isinstance(config[key], dict) else config[key]
            names = [asked] if isinstance(asked, str) else asked
            if not isinstance(names, list) or any(name not in HARMLESS_IMPORTS for name in names):
                raise ConfigError(
                    f'{path} asks for an import by {key!s:.40}, but it is data, which runs no code; '
                    'give --import MODULE instead, or write the config in Python'
                )


def _base_path(base: Any, path: Path, root: Path) -> Path:
    """The path of a base.

    Raises:
        ConfigError: it is code, or outside the folder of the requested config.
    """
    if not isinstance(base, str):
        raise ConfigError(f'{BASE} of {path} must be a path or a list of paths')
    if os.path.splitext(base)[1] not in SUFFIXES or '::' in base:
        raise ConfigError(
            f'{path} has the base {base[:100]!r}, but data may inherit only from YAML and JSON, which run no code; '
            'write the config in Python'
        )
    found = path.parent / base
    inside(root, os.path.relpath(found, root) if not os.path.isabs(base) and '\0' not in base else base)
    return found


def _merged(child: Mapping[str, Any], base: Mapping[str, Any], path: str) -> dict[str, Any]:
    """A config merged over its base: dicts are merged unless ``_delete_`` is set, everything else is replaced."""
    merged = dict(base)
    for key, value in child.items():
        if not isinstance(value, dict):
            merged[key] = value
            continue
        keeps = key in base and not value.get(DELETE, False)
        if keeps and not isinstance(base[key], dict):
            raise ConfigError(
                f'{key} is a mapping in {path}, but not in its base; write {DELETE}: true into it to replace that'
            )
        own = {name: item for name, item in value.items() if name != DELETE or key not in base}
        merged[key] = _merged(own, base[key], path) if keeps else own
    return merged


@contextmanager
def bases_stay_data() -> Iterator[None]:
    """A context in which mmengine reads a config in Python; bases in YAML and JSON are read by this module's rules."""
    from mmengine.config import config as module

    from lossreg.engine import Config

    def base_files(file: str) -> list[str]:
        if not is_data(Path(file)):
            return list(find(file))
        # mmengine reads copies in a separate folder, so only names can be checked here
        config = _parsed(Path(file))
        _refuse_imports(config, Path(file))
        given = config.get(BASE, [])
        names = given if isinstance(given, list) else [given]
        for base in names:
            if not isinstance(base, str) or os.path.splitext(base)[1] not in SUFFIXES or '::' in base:
                raise ConfigError(f'a base in YAML or JSON has the base {str(base)[:100]!r}, which is not data')
        return names

    find = Config._get_base_files
    with (
        mock.patch.object(Config, '_get_base_files', staticmethod(base_files)),
        mock.patch.object(module, 'load', lambda file: _parsed(Path(file))),
    ):
        yield
