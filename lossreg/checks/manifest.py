"""Checks exported files against their manifest: the hash, and that they still give eager's numbers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lossreg.artefact import parameters_hash, read_manifest, sha256
from lossreg.checks.backends import compare_rows
from lossreg.checks.rows import Row, RowMaker, Status
from lossreg.errors import ConfigError
from lossreg.formats import BACKENDS, SUFFIXES
from lossreg.request import Request
from lossreg.runtimes import Eager, load
from lossreg.unit import Unit


def manifest_rows(path: Path) -> Iterator[Row]:
    """The rows of every artefact that a ``manifest.json`` lists.

    Raises:
        ConfigError: the file is no manifest.
    """
    for name, entry in sorted(read_manifest(path.parent)['artefacts'].items()):
        unit = _unit(path, entry)
        backend = next(name for name, format in BACKENDS.items() if format == entry['format'])
        maker = RowMaker(unit, backend, entry['grad'])
        file = path.parent / name
        if not file.exists():
            yield maker.row('hash', Status.FAIL, f'{name} is listed, but not there')
            continue
        data = file.read_bytes()
        if sha256(data) != entry['sha256']:
            yield maker.row('hash', Status.FAIL, f'{name} is not the file that was exported; export it again')
            continue
        yield maker.row('hash', Status.PASS, name)
        if entry.get('parameters', '') != parameters_hash(unit):
            yield maker.row('parity', Status.SKIP, 'it holds trained parameters, which its config does not bring back')
            continue
        yield from compare_rows(maker, load(data, SUFFIXES[entry['format']]), Eager(unit, entry['grad']))


def _unit(path: Path, entry: dict[str, Any]) -> Unit:
    try:
        config, variant, call, inputs = entry['config'], entry['variant'], entry['call'], entry['inputs']
    except (KeyError, TypeError) as error:
        raise ConfigError(f'{path} has an entry that lossreg did not write: {error} is missing') from error
    request = Request.of(config, variant=variant, call=call)
    return request.unit(request.calls()[0], [i['name'] for i in inputs])
