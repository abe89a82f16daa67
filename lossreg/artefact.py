"""What surrounds the bytes of an export: metadata, file names, atomic writing and the manifest."""

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

from lossreg.errors import ConfigError
from lossreg.formats import SUFFIXES
from lossreg.unit import Unit

METADATA_KEY = 'lossreg.json'
MANIFEST = 'manifest.json'
MANIFEST_SCHEMA = 1


def metadata(unit: Unit, grad: bool) -> dict[str, Any]:
    """What an artefact says of itself: the config, and the meaning of its inputs and outputs."""
    about = {
        'schema': MANIFEST_SCHEMA,
        'lossreg': version('lossreg'),
        'license': 'Apache-2.0',
        'loss': unit.name,
        'config': dict(unit.config),
        'variant': unit.variant,
        'call': unit.call.name,
        'grad': grad,
        'inputs': [
            {
                'name': i.name,
                'role': i.role.value,
                'shape': [str(unit.fixed.get(dim, dim)) for dim in i.dims],
                'dtype': 'int64' if i.role.is_integer else 'float32',
            }
            for i in unit.taken
        ],
        'outputs': list(unit.outputs(grad)),
    }
    return {**about, 'fixed': dict(unit.fixed)} if unit.fixed else about


def parameters_hash(unit: Unit) -> str:
    """The SHA-256 of the parameters an artefact holds; empty where it has none. A config does not bring them back."""
    inputs = {i.name for i in unit.inputs}
    held = [p.detach().cpu().numpy().tobytes() for name, p in unit.loss.named_parameters() if name not in inputs]
    return sha256(b''.join(held)) if held else ''


def encode(data: Mapping[str, Any]) -> str:
    """JSON, always in the same order; what JSON cannot hold is written as text."""
    return json.dumps(data, sort_keys=True, default=str)


def file_name(unit: Unit, format: str, grad: bool, several_calls: bool) -> str:
    """``<Loss>.<variant>[.<call>][.<optional inputs present>][.grad_output][.<fixed sizes>][.grad].<ext>``."""
    call = [unit.call.name] if several_calls else []
    added = [i.name for i in unit.taken if i.optional or i is unit.cotangent]
    added += [f'{dim}{size}' for dim, size in unit.fixed.items()]
    return '.'.join([unit.name, unit.variant, *call, *added, *(['grad'] if grad else []), SUFFIXES[format]])


def write_archive(members: Mapping[str, bytes]) -> bytes:
    """A zip archive of these members with fixed dates: torch's archives, made equal on every machine."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, 'w', zipfile.ZIP_STORED) as archive:
        for name, content in members.items():
            archive.writestr(zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0)), content)
    return out.getvalue()


def require_writable(folder: Path) -> None:
    """Makes a folder unless it is there, and a file in it for a moment: before long work, not after.

    Raises:
        ConfigError: the folder cannot be written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise ConfigError(f'cannot write to {folder}: {error.strerror}; give another folder') from error


def write_atomically(path: Path, data: bytes) -> None:
    """Writes a file whole or not at all: an earlier one stays until the new one is complete.

    Raises:
        ConfigError: the folder cannot be written to.
    """
    require_writable(path.parent)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix='.')  # a name too long is found below
    try:
        with os.fdopen(handle, 'wb') as file:
            file.write(data)
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except OSError as error:
        os.unlink(temporary)
        raise ConfigError(f'cannot write {path}: {error.strerror}') from error


def sha256(data: bytes) -> str:
    """The hexadecimal SHA-256 of a file's content."""
    return hashlib.sha256(data).hexdigest()


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a folder; an empty one where there is none.

    Raises:
        ConfigError: the file is not a manifest of this version.
    """
    path = folder / MANIFEST
    if not os.path.exists(path):
        return {'schema': MANIFEST_SCHEMA, 'artefacts': {}}
    try:
        manifest: dict[str, Any] = json.loads(path.read_text(encoding='utf-8'))
        artefacts = manifest['artefacts']
        if manifest['schema'] != MANIFEST_SCHEMA or not isinstance(artefacts, dict):
            raise ValueError(f'schema {manifest["schema"]}')
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(f'{path} is not a manifest of lossreg schema {MANIFEST_SCHEMA}: {error}') from error
    return manifest


def update_manifest(folder: Path, name: str, entry: Mapping[str, Any]) -> None:
    """Adds or replaces one artefact's entry."""
    manifest = read_manifest(folder)
    manifest['artefacts'][name] = dict(entry)
    text = json.dumps(manifest, indent=2, sort_keys=True, default=str) + '\n'
    write_atomically(folder / MANIFEST, text.encode())
