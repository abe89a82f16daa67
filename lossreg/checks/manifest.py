"""Checks exported files against their manifest: the hash, and that they still give eager's numbers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lossreg.artefact import parameters_hash, read_manifest, sha256
from lossreg.checks.backends import compare_rows, expected_cases
from lossreg.checks.rows import Row, RowMaker, Status
from lossreg.errors import ConfigError
from lossreg.exporters.train_step import KIND
from lossreg.formats import BACKENDS, SUFFIXES
from lossreg.request import Request
from lossreg.runtimes import Eager, load
from lossreg.samples import draw
from lossreg.unit import Unit, with_cotangent, with_fixed


def manifest_rows(path: Path) -> Iterator[Row]:
    """The rows of every artefact that a ``manifest.json`` lists.

    Raises:
        ConfigError: the file is no manifest.
    """
    for name, entry in sorted(read_manifest(path.parent)['artefacts'].items()):
        if entry.get('kind') == KIND:
            yield _step_row(path.parent / name, entry)
            continue
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
        cases = expected_cases(unit, Eager(unit, entry['grad']))
        yield from compare_rows(maker, load(data, SUFFIXES[entry['format']]), cases)


def _step_row(file: Path, entry: dict[str, Any]) -> Row:
    """A training step's graph: only its hash, because its config does not bring the student back."""
    if not file.exists():
        status, detail = Status.FAIL, f'{file.name} is listed, but not there'
    elif sha256(file.read_bytes()) != entry['sha256']:
        status, detail = Status.FAIL, f'{file.name} is not the file that was exported; export it again'
    else:
        status, detail = Status.PASS, file.name
    return Row(entry['loss'], '', '', '', (), 'ort-cpu', 'float32', True, 'hash', status, detail=detail)


def _unit(path: Path, entry: dict[str, Any]) -> Unit:
    try:
        config, variant, call, inputs = entry['config'], entry['variant'], entry['call'], entry['inputs']
    except (KeyError, TypeError) as error:
        raise ConfigError(f'{path} has an entry that lossreg did not write: {error} is missing') from error
    request = Request.of(config, variant=variant, call=call)
    names = [i['name'] for i in inputs]
    unit = request.unit(request.calls()[0], names)
    unit = with_cotangent(unit, draw(unit)) if 'grad_output' in names else unit
    return with_fixed(unit, entry.get('fixed', {}))
