"""Artefacts as files: metadata, file names, atomic writes and the manifest."""

from __future__ import annotations

import hashlib
import io
import json
import os
import tempfile
import zipfile
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from filelock import SoftFileLock, Timeout

from lossreg.errors import ConfigError
from lossreg.formats import SUFFIXES
from lossreg.unit import Unit
from lossreg.untrusted import MAX_TEXT, field, parse_json, read_file

METADATA_KEY = 'lossreg.json'
MANIFEST = 'manifest.json'
MANIFEST_SCHEMA = 1
STEP_KIND = 'train_step'
"""The ``kind`` of a training step's files in metadata and manifests; files of a loss have no ``kind``."""


def metadata(unit: Unit) -> dict[str, Any]:
    """The metadata of an artefact: its config, and the meaning of its inputs and outputs."""
    return {
        'schema': MANIFEST_SCHEMA,
        'lossreg': version('lossreg'),
        'license': 'Apache-2.0',
        'loss': unit.name,
        'config': dict(unit.config),
        'variant': unit.variant,
        'call': unit.call.name,
        'grad': unit.grad,
        'inputs': [
            {
                'name': i.name,
                'role': i.role.value,
                'shape': [str(unit.fixed.get(dim, dim)) for dim in i.dims],
                'dtype': 'int64' if i.role.is_integer else 'float32',
            }
            for i in unit.taken
        ],
        'outputs': list(unit.outputs),
        **({'heads': list(unit.heads), 'constants': dict(unit.constants)} if unit.heads else {}),
        **({'fixed': dict(unit.fixed)} if unit.fixed else {}),
    }


def parameters_hash(unit: Unit) -> str:
    """The SHA-256 of the parameters that an artefact holds, which its config cannot restore; '' if it holds none."""
    inputs = {i.name for i in unit.inputs}
    held = [p.detach().cpu().numpy().tobytes() for name, p in unit.loss.named_parameters() if name not in inputs]
    return sha256(b''.join(held)) if held else ''


def encode(data: Mapping[str, Any]) -> str:
    """JSON with sorted keys; values that JSON cannot hold become text."""
    return json.dumps(data, sort_keys=True, default=str)


def file_name(unit: Unit, format: str) -> str:
    """``<Loss>.<variant>[.<call>][.<optional inputs present>][.grad_output][.<fixed sizes>][.grad].<ext>``."""
    call = [unit.call.name] if unit.has_other_calls else []
    added = [i.name for i in unit.taken if i.optional or i is unit.cotangent]
    added += [f'{dim}{size}' for dim, size in unit.fixed.items()]
    return '.'.join([unit.name, unit.variant, *call, *added, *(['grad'] if unit.grad else []), SUFFIXES[format]])


def write_archive(members: Mapping[str, bytes]) -> bytes:
    """A zip archive of these members, as torch writes it but with fixed dates, so that it is the same everywhere."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, 'w', zipfile.ZIP_STORED) as archive:
        for name, content in members.items():
            archive.writestr(zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0)), content)
    return out.getvalue()


def require_writable(folder: Path) -> None:
    """Creates a folder if needed and tries to write to it, so that a failure is found before long work.

    Raises:
        ConfigError: the folder cannot be written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise ConfigError(f'cannot write to {folder}: {error.strerror}; give another folder') from error


def write_atomically(path: Path, data: bytes) -> None:
    """Writes a file completely or not at all; an earlier file is kept until the new one is complete.

    Raises:
        ConfigError: the folder cannot be written to.
    """
    require_writable(path.parent)
    _replace_all(path.parent, {path.name: data})


def _replace_all(folder: Path, files: Mapping[str, bytes]) -> None:
    """Replaces files in a folder, in order, after writing all of them under temporary names.

    Raises:
        ConfigError: a file cannot be written; if the disk is full, no file has changed.
    """
    temporary: dict[Path, str] = {}
    path = folder
    try:
        for name, data in files.items():
            path = folder / name
            if os.path.exists(path) and not os.path.isfile(path):  # a device would be replaced, not written to
                raise ConfigError(f'cannot write {path}: it exists and is not a regular file')
            handle, temporary[path] = tempfile.mkstemp(dir=folder, prefix='.')  # `replace` fails if a name is too long
            with os.fdopen(handle, 'wb') as file:
                file.write(data)
            os.chmod(temporary[path], 0o644)
        for path in list(temporary):
            os.replace(temporary[path], path)
            del temporary[path]
    except OSError as error:
        raise ConfigError(f'cannot write {path}: {error.strerror}') from error
    finally:
        for left in temporary.values():
            os.unlink(left)


def sha256(data: bytes) -> str:
    """The hexadecimal SHA-256 of a file's content."""
    return hashlib.sha256(data).hexdigest()


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a folder, empty if the file does not exist. Its entries are not checked.

    Raises:
        ConfigError: the file is not a manifest of this version.
    """
    path = folder / MANIFEST
    if not os.path.lexists(path):
        return {'schema': MANIFEST_SCHEMA, 'artefacts': {}}
    manifest = parse_json(read_file(path, MAX_TEXT), str(path), finite=False)
    if not isinstance(manifest, dict) or not isinstance(manifest.get('artefacts'), dict):
        raise ConfigError(f'{path} is not a manifest of lossreg: it needs an object with "artefacts", an object')
    if type(manifest.get('schema')) is not int or manifest['schema'] != MANIFEST_SCHEMA:
        found = repr(manifest.get('schema'))[:80]
        raise ConfigError(f'{path} is not a manifest of lossreg schema {MANIFEST_SCHEMA}: its schema is {found}')
    return manifest


LOCK = '.lossreg.lock'
LOCK_SECONDS = 120.0
"""Longer than any process holds the lock: its files are ready before it locks the folder."""


def publish(folder: Path, files: Mapping[str, bytes], entries: Mapping[str, Mapping[str, Any]]) -> None:
    """Writes files, and then their entries in the folder's manifest. Several processes may do so at the same time.

    If a process is killed in between, its files do not match their entries, and a check of the manifest fails.

    Raises:
        ConfigError: the folder cannot be written to, its manifest is invalid, or another process keeps it locked.
    """
    require_writable(folder)
    # the lock is a file with its owner's process id, so one left by a killed process is taken over
    lock = SoftFileLock(folder / LOCK, timeout=LOCK_SECONDS)
    try:
        lock.acquire()
    except Timeout as error:
        raise ConfigError(
            f'another process has been writing to {folder} for {LOCK_SECONDS:.0f} s; '
            f'wait for it, or delete {folder / LOCK} if there is none'
        ) from error
    except OSError as error:
        raise ConfigError(f'cannot write to {folder}: {error.strerror}; give another folder') from error
    try:
        manifest = read_manifest(folder)
        manifest['artefacts'] |= {name: dict(entry) for name, entry in entries.items()}
        text = json.dumps(manifest, indent=2, sort_keys=True, default=str) + '\n'
        _replace_all(folder, {**files, MANIFEST: text.encode()})
    finally:
        lock.release()


class MetadataError(ValueError):
    """The metadata of an artefact is damaged."""


def parse_metadata(text: str) -> dict[str, Any]:
    """The metadata of an artefact, as :func:`metadata` wrote it.

    Raises:
        MetadataError: the text is not such metadata.
    """
    try:
        found = parse_json(text, 'its metadata', finite=False)
        if not isinstance(found, dict):
            raise ConfigError('its metadata is not a JSON object')
        for name in field(found, 'outputs', list):
            if not isinstance(name, str):
                raise ConfigError('its metadata is damaged: the name of an output is not a string')
        for entry in field(found, 'inputs', list):
            if not isinstance(entry, dict) or not isinstance(entry.get('name'), str):
                raise ConfigError('its metadata is damaged: an input has no name')
    except ConfigError as error:
        raise MetadataError(str(error)) from error
    return found
