"""Checks exported files against their manifest: their hashes, and that they still give eager's numbers.

A manifest is untrusted data: it cannot name a file outside its folder, and whatever it holds becomes a row or a
ConfigError. A file is loaded only if its hash is the one in the manifest.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lossreg.archive import refuse_other_files
from lossreg.artefact import STEP_KIND, metadata, parameters_hash, read_manifest, sha256
from lossreg.checks.backends import compare_rows, expected_cases
from lossreg.checks.rows import Row, RowMaker, Status
from lossreg.errors import ConfigError, MissingBackendError, first_line
from lossreg.formats import BACKENDS, SUFFIXES
from lossreg.request import Request
from lossreg.runtimes import Eager, load
from lossreg.samples import draw
from lossreg.unit import Unit, with_cotangent, with_fixed
from lossreg.untrusted import built_from_data, field, inside, read_file


def manifest_rows(path: Path) -> Iterator[Row]:
    """The rows of every artefact that a ``manifest.json`` lists, or a failing row if it lists none.

    Raises:
        ConfigError: the file is not a manifest.
    """
    artefacts = read_manifest(path.parent)['artefacts']
    if not artefacts:
        yield _failed(path.name, f'{path} lists no artefacts, so nothing was checked')
    for name, entry in sorted(artefacts.items()):
        try:
            listed = _Listed.of(entry)
            data = listed.read(path.parent, name)
        except ConfigError as error:
            yield _failed(name, f'{_short(name)} {error}', entry)
            continue
        yield listed.row('hash', Status.PASS, name)
        if listed.kind != STEP_KIND:
            yield from _artefact_rows(path.parent, name, listed, data)


def _artefact_rows(folder: Path, name: str, listed: _Listed, data: bytes) -> Iterator[Row]:
    """The rows of one artefact whose hash is right."""
    try:
        with built_from_data(folder):
            unit = _unit(listed)
        maker = RowMaker(unit, listed.backend)
        if listed.format == 'onnx':
            refuse_other_files(data)
        runtime = load(data, SUFFIXES[listed.format])
        _compare_with_entry(listed, runtime.metadata, 'the file says')
        _compare_with_entry(listed, metadata(unit), 'its config gives')
        trained = listed.entry.get('parameters', '') != parameters_hash(unit)
        cases = [] if trained else expected_cases(unit, Eager(unit))
    except MissingBackendError as error:
        yield listed.row('load', Status.MISSING, str(error))
        return
    except Exception as error:  # an odd config or a damaged file may raise anything
        kind = '' if isinstance(error, ConfigError) else f'{type(error).__name__}: '
        yield listed.row('manifest', Status.FAIL, f'{name}: {kind}{first_line(error)}')
        return
    if trained:
        yield maker.row('parity', Status.SKIP, 'it holds trained parameters, which its config cannot restore')
        return
    yield from compare_rows(maker, runtime, cases)


def _compare_with_entry(listed: _Listed, other: Mapping[str, Any], whose: str) -> None:
    """Raises ConfigError if an entry differs from the metadata of the file, or from those its config gives."""
    for key in sorted(other.keys() - {'schema', 'lossreg', 'license'}):
        if not _same(listed.entry.get(key), other[key]):
            said, found = repr(listed.entry.get(key))[:200], repr(other[key])[:200]
            raise ConfigError(f'{key} is {said} in the manifest, but {whose} {found}; export it again')


def _same(listed: Any, found: Any) -> bool:
    """Whether two values are the same in JSON, which has no tuples and does not tell 1 from 1.0, but from true."""
    if isinstance(listed, dict) and isinstance(found, Mapping):
        return listed.keys() == found.keys() and all(_same(value, found[key]) for key, value in listed.items())
    if isinstance(listed, list) and isinstance(found, (list, tuple)):
        return len(listed) == len(found) and all(map(_same, listed, found))
    return bool(listed == found) and isinstance(listed, bool) == isinstance(found, bool)


def _unit(listed: _Listed) -> Unit:
    """The unit that an entry describes.

    Raises:
        ConfigError: this version has no such unit.
    """
    request = Request.of(listed.config, variant=listed.variant, call_name=listed.call)
    request = replace(request, heads=listed.heads, constants=listed.constants)
    unit = replace(request.unit(request.calls()[0], listed.input_names), grad=listed.grad)
    unit = with_cotangent(unit, draw(unit)) if 'grad_output' in listed.input_names else unit
    return with_fixed(unit, listed.fixed)


@dataclass(frozen=True)
class _Listed:
    """An entry of a manifest, with its types checked.

    Attributes:
        entry: the whole entry.
        kind: ``train_step`` for a file of a training step, of which only the hash can be checked; '' for a loss.
        format: the format of the file.
        input_names: the inputs of the file.
        heads: the places in a model that make this call of the loss.
        constants: the other arguments they give.
        fixed: the sizes of dimensions that are constant.
    """

    entry: Mapping[str, Any]
    kind: str
    loss: str
    format: str
    config: Mapping[str, Any]
    variant: str
    call: str
    grad: bool
    input_names: tuple[str, ...]
    heads: tuple[str, ...]
    constants: Mapping[str, float | str | None]
    fixed: Mapping[str, int]

    @classmethod
    def of(cls, entry: Any) -> _Listed:
        """Checks the types.

        Raises:
            ConfigError: one is wrong.
        """
        if not isinstance(entry, dict):
            raise ConfigError('has an entry that is not an object')
        try:
            if not re.fullmatch('[0-9a-f]{64}', field(entry, 'sha256', str)):
                raise ConfigError('sha256 is not 64 hexadecimal digits')
            if field(entry, 'bytes', int) < 0:
                raise ConfigError('bytes is negative')
            kind = field(entry, 'kind', str) if 'kind' in entry else ''
            if kind not in ('', STEP_KIND):
                raise ConfigError(f'kind {kind[:40]!r} is unknown')
            loss, format = field(entry, 'loss', str), field(entry, 'format', str)
            if kind == STEP_KIND:
                return cls(entry, kind, loss, format, {}, '', '', True, (), (), {}, {})
            if format not in SUFFIXES:
                raise ConfigError(f'format {format[:40]!r} is unknown; known are {", ".join(SUFFIXES)}')
            field(field(entry, 'config', dict), 'type', str)
            inputs = [field(i, 'name', str) if isinstance(i, dict) else '' for i in field(entry, 'inputs', list)]
            if not all(inputs) or not all(isinstance(o, str) for o in field(entry, 'outputs', list)):
                raise ConfigError('inputs or outputs have no names')
            if 'parameters' in entry:
                field(entry, 'parameters', str)
            variant, call, grad = field(entry, 'variant', str), field(entry, 'call', str), field(entry, 'grad', bool)
            heads = field(entry, 'heads', list) if 'heads' in entry else []
            constants = field(entry, 'constants', dict) if 'constants' in entry else {}
            fixed = field(entry, 'fixed', dict) if 'fixed' in entry else {}
            if not all(isinstance(head, str) for head in heads):
                raise ConfigError('heads are not names')
            if not all(isinstance(value, (int, float, str, type(None))) for value in constants.values()):
                raise ConfigError('constants are neither numbers, names nor null')
        except ConfigError as error:
            raise ConfigError(f'has an entry that lossreg did not write: {error}') from error
        called = tuple(heads), constants, fixed
        return cls(entry, kind, loss, format, entry['config'], variant, call, grad, tuple(inputs), *called)

    @property
    def backend(self) -> str:
        """The backend that runs the file."""
        return next((name for name, format in BACKENDS.items() if format == self.format), 'ort-cpu')

    def read(self, folder: Path, name: str) -> bytes:
        """The bytes of the file.

        Raises:
            ConfigError: it is missing, not a regular file, outside the folder, or not the one that was exported.
        """
        path = inside(folder, name)
        if not os.path.exists(path):  # pathlib's raises if the name is too long
            raise ConfigError('is listed, but does not exist')
        size, expected = os.path.getsize(path), self.entry['bytes']
        if os.path.isfile(path) and size != expected:
            raise ConfigError(
                f'is not the file that was exported: it holds {size} bytes, not {expected}; export it again'
            )
        data = read_file(path)
        if sha256(data) != self.entry['sha256']:
            raise ConfigError('is not the file that was exported; export it again')
        return data

    def row(self, check: str, status: Status, detail: str) -> Row:
        """A row of one check."""
        return Row(
            loss=self.loss,
            variant=self.variant,
            call=self.call,
            inputs=self.input_names,
            backend=self.backend,
            dtype='float32',
            grad=self.grad,
            check=check,
            status=status,
            detail=detail,
        )


def _failed(name: str, detail: str, entry: Any = None) -> Row:
    """The row of an entry that cannot be used."""
    loss = entry.get('loss') if isinstance(entry, dict) else None
    title = loss if isinstance(loss, str) else _short(name)
    return Row(loss=title, backend='ort-cpu', dtype='float32', check='hash', status=Status.FAIL, detail=detail)


def _short(name: str) -> str:
    return name if len(name) < 100 and name.isprintable() else f'{name[:100]!r}'
