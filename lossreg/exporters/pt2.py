"""pt2: a ``torch.export`` archive."""

from __future__ import annotations

import io
import zipfile

import torch
from torch.export import ExportedProgram

from lossreg.artefact import METADATA_KEY, encode, write_archive
from lossreg.exporters.signature import Signature


def to_pt2(program: ExportedProgram, signature: Signature) -> bytes:
    """A traced program as a pt2 archive. torch itself guards the dimensions that must be equal.

    Inside an autocast region that would round its products, the program raises RuntimeError (``Tensor dtype
    mismatch``).
    """
    _refuse_autocast(program)
    buffer = io.BytesIO()
    torch.export.save(program, buffer, extra_files={METADATA_KEY: encode(signature.metadata)})
    with zipfile.ZipFile(buffer) as archive:
        members = {m: archive.read(m) for m in archive.namelist()}
    # the id depends on the state of the process
    members = {m: b'0' * 40 if m.endswith('serialization_id') else content for m, content in members.items()}
    return write_archive(members)


def _refuse_autocast(program: ExportedProgram) -> None:
    """Asserts the dtype of every product: autocast would round them, and a graph cannot switch it off.

    The ONNX exporter drops such assertions.
    """
    aten = torch.ops.aten
    for node in list(program.graph.nodes):
        if node.target in (aten.mm.default, aten.bmm.default, aten.addmm.default, aten.baddbmm.default):
            with program.graph.inserting_after(node):
                dtype = {'dtype': node.meta['val'].dtype}
                program.graph.call_function(aten._assert_tensor_metadata.default, (node,), dtype)
    program.graph_module.recompile()
