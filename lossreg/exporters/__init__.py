"""Exports a loss, alone or with its gradient. A file is verified before it is put in place."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from torch import nn

from lossreg.archive import ArchiveError
from lossreg.artefact import file_name, metadata, parameters_hash, publish, read_manifest, sha256
from lossreg.compare import AGREED, Agreement, compare, disagreement
from lossreg.errors import CheckError, ConfigError, DeclinedError, LossregError, first_line
from lossreg.exporters.signature import Signature
from lossreg.exporters.torchscript import to_torchscript
from lossreg.formats import DEFAULT_OPSET, OLDEST_ONNXRUNTIME, OLDEST_ONNXRUNTIME_EMPTY_BATCH, SUFFIXES
from lossreg.request import Request
from lossreg.runtimes import Eager, load
from lossreg.samples import draw, numeric_cases
from lossreg.spec import EMPTY
from lossreg.unit import Unit, with_cotangent, with_fixed
from lossreg.versions import require_export_layer, versions

Format = Literal['onnx', 'torchscript', 'pt2']


def export(
    loss: nn.Module | Mapping[str, Any] | str,
    path: str | Path,
    *,
    format: Format = 'onnx',
    grad: bool = False,
    cotangent: bool = False,
    call: str = '',
    optional: Sequence[str] | Literal['all'] = (),
    fixed: Mapping[str, int] = EMPTY,
    opset: int = DEFAULT_OPSET,
) -> Path:
    """Exports one loss to one file.

    Args:
        loss: a config dict, a name, or an instance built by :func:`lossreg.build_loss`.
        path: a file, or a folder. In a folder, the file is named
            ``<Loss>.<variant>[.<call>][.<optional inputs>][.<fixed sizes>][.grad].<ext>``.
        format: ``onnx``, ``torchscript`` (.pt) or ``pt2``.
        grad: whether the file also returns ``grad_<input>``, the gradient of the loss's sum, for every
            differentiable input.
        cotangent: whether the file also takes ``grad_output``, of the loss's shape, and returns the vector-Jacobian
            product, as a custom autograd function needs it. Requires ``grad``.
        call: which of the loss's calls; its first by default (``lossreg show LOSS`` lists them).
        optional: the optional inputs that the file takes, such as ``['weight', 'avg_factor']``, or ``'all'``. A file
            takes exactly the inputs it was exported with.
        fixed: sizes of dimensions that are constant in the file, by symbol, such as ``{'N': 32}``, for runtimes that
            get dynamic sizes wrong; ``lossreg show LOSS`` lists the symbols. TorchScript cannot fix a size.
        opset: ONNX opset; 18 loads in onnxruntime 1.16.3 and later.

    Returns:
        The path of the file. A ``manifest.json`` beside it records hash, inputs, outputs, versions and measured errors.

    Raises:
        ConfigError: a config, call, input, format or path is wrong.
        DeclinedError: a cotangent for several losses, or fixed dimensions in TorchScript.
        MissingBackendError: a package that the format needs is not installed.
        CheckError: the file does not give eager's numbers. An earlier file is kept.
    """
    refuse_fixed(fixed, [format])
    request = Request.of(loss, call_name=call)
    unit = unit_asked(request, optional, grad=grad, cotangent=cotangent, fixed=fixed)
    (written,) = export_unit(unit, path, [format], opset)
    return written


def unit_asked(
    request: Request,
    optional: Sequence[str] | Literal['all'] = (),
    *,
    grad: bool = False,
    cotangent: bool = False,
    fixed: Mapping[str, int] = EMPTY,
) -> Unit:
    """The unit that the options of :func:`export` describe, in the first call that the request allows."""
    call = request.calls()[0]
    unit = replace(request.unit(call, _chosen(request, optional)), grad=grad)
    if cotangent:
        if not grad:
            raise ConfigError('cotangent is for files with gradient; give grad=True too')
        unit = with_cotangent(unit, draw(unit))
    return with_fixed(unit, fixed)


def export_unit(unit: Unit, path: str | Path, formats: Sequence[str], opset: int = DEFAULT_OPSET) -> list[Path]:
    """Exports a unit, traced once, to one file per format; nothing is written until all of them are verified."""
    targets = {format: _target(Path(path), unit, format) for format in formats}
    for folder in {target.parent for target in targets.values()}:
        read_manifest(folder)  # raises if it is unreadable, before anything is written
    files: dict[str, bytes] = {}
    entries: dict[str, dict[str, Any]] = {}
    try:
        for format, data in build(unit, formats, opset).items():
            found = verify(unit, data, format)
            if not found:
                raise CheckError(f'{targets[format].name} was not written: {found.detail}')
            files[targets[format].name] = data
            entries[targets[format].name] = _manifest_entry(unit, data, format, opset, found)
    except LossregError:
        raise
    except Exception as error:  # an option of an unexpected type may raise anything
        reason = f'{type(error).__name__}: {first_line(error)}'
        raise CheckError(f'{unit.name} cannot be exported with {dict(unit.config)}: {reason}') from error
    publish(targets[formats[0]].parent, files, entries)
    return list(targets.values())


def verify(unit: Unit, data: bytes, format: str) -> Agreement:
    """Compares an artefact with eager, at shapes other than the traced one and on extreme inputs."""
    eager = Eager(unit)
    try:
        runtime = load(data, SUFFIXES[format])
    except ArchiveError as error:
        return disagreement(f'it cannot be loaded again: {error}')
    worst = AGREED
    for number, case in enumerate(numeric_cases(unit), 1):
        try:
            outputs = runtime(case.values)
        except Exception as error:  # each runtime has errors of its own
            return disagreement(f'on {case.name} inputs it fails: {first_line(error)}')
        found = compare(outputs, eager(case.values), unit.spec.tolerance, scaled=not case.smooth)
        if not found:
            return replace(found, detail=f'on {case.name} inputs {found.detail}')
        worst = worst.joined(found, cases=number)
    return worst


def refuse_fixed(fixed: Mapping[str, int], formats: Iterable[str]) -> None:
    """Raises DeclinedError if dimensions are fixed and one of the formats cannot fix any."""
    if fixed and 'torchscript' in formats:
        raise DeclinedError('TorchScript takes every size, so none can be fixed; fix sizes in onnx or pt2')


def build(unit: Unit, formats: Iterable[str], opset: int = DEFAULT_OPSET) -> dict[str, bytes]:
    """The bytes of a unit in several formats, traced once, not verified."""
    built: dict[str, bytes] = {}
    program = None
    signature = Signature.of(unit)
    # ONNX comes last, because its exporter modifies the program
    for format in sorted(formats, key=lambda format: format == 'onnx'):
        if format == 'torchscript':
            built[format] = to_torchscript(unit)
            continue
        require_export_layer()  # an older torch cannot even import what follows
        from lossreg.exporters import onnx, pt2
        from lossreg.exporters.trace import trace

        program = trace(unit) if program is None else program
        if format == 'pt2':
            built[format] = pt2.to_pt2(program, signature)
        else:
            built[format] = onnx.to_onnx(program, signature, opset)
    return built


def _chosen(request: Request, optional: Sequence[str] | Literal['all']) -> list[str]:
    known = request.takes(request.calls()[0])
    chosen = known if optional == 'all' else list(optional)
    for name in chosen:
        if name not in known:
            have = ', '.join(known) or 'none'
            raise ConfigError(f'{type(request.loss).__name__} has no optional input {name!r} here; it has {have}')
    return chosen


def _target(path: Path, unit: Unit, format: str) -> Path:
    if format not in SUFFIXES:
        raise ConfigError(f'unknown format {format!r}; use {", ".join(SUFFIXES)}')
    if os.path.isdir(path) or not path.suffix:  # pathlib's is_dir raises if the name is too long
        return path / file_name(unit, format)
    if path.suffix != f'.{SUFFIXES[format]}':
        raise ConfigError(f'{path.name} does not end in .{SUFFIXES[format]}, as {format} files do')
    return path


def _manifest_entry(unit: Unit, data: bytes, format: str, opset: int, found: Agreement) -> dict[str, Any]:
    entry = {
        **metadata(unit),
        'format': format,
        'parameters': parameters_hash(unit),
        'sha256': sha256(data),
        'bytes': len(data),
        'tolerance': {'rtol': unit.spec.tolerance.rtol, 'atol': unit.spec.tolerance.atol},
        'measured': {'max_abs': found.max_abs, 'max_rel': found.max_rel, 'cases': found.cases},
        'versions': versions(),
    }
    if format == 'onnx':
        entry['opset'] = opset
        entry['oldest_onnxruntime'] = OLDEST_ONNXRUNTIME.get(opset)
        entry['oldest_onnxruntime_empty_batch'] = OLDEST_ONNXRUNTIME_EMPTY_BATCH.get(opset)
    return entry
