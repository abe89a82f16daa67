"""pt2: a ``torch.export`` archive."""

from __future__ import annotations

import io
import zipfile

import torch
from torch.export import ExportedProgram

from lossreg.artefact import METADATA_KEY, encode, metadata, write_archive
from lossreg.unit import Unit


def to_pt2(unit: Unit, grad: bool, program: ExportedProgram) -> bytes:
    """The unit, traced as ``program``, as a pt2 archive; dimensions that must be equal are guarded by torch itself."""
    buffer = io.BytesIO()
    torch.export.save(program, buffer, extra_files={METADATA_KEY: encode(metadata(unit, grad))})
    with zipfile.ZipFile(buffer) as archive:
        members = {m: archive.read(m) for m in archive.namelist()}
    # an id drawn from process state
    members = {m: b'0' * 40 if m.endswith('serialization_id') else content for m, content in members.items()}
    return write_archive(members)
