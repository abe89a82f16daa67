"""TorchScript: the scripted loss behind a ``forward`` whose parameters are the exported inputs."""

from __future__ import annotations

import io
import re
import warnings
import zipfile

import torch
from torch import nn

from lossreg.artefact import METADATA_KEY, encode, metadata, write_archive
from lossreg.spec import Role
from lossreg.unit import Unit


def to_torchscript(unit: Unit) -> bytes:
    """The unit as a TorchScript archive.

    With gradient, ``forward`` runs autograd, so it must not be called under ``torch.no_grad``.
    """
    with warnings.catch_warnings():
        warnings.simplefilter('ignore', DeprecationWarning)
        scripted = torch.jit.script(_holder(unit.loss))
        scripted.define(forward_source(unit))
        buffer = io.BytesIO()
        torch.jit.save(scripted, buffer, _extra_files={METADATA_KEY: encode(metadata(unit))})
    return canonical(buffer.getvalue())


def _holder(loss: nn.Module) -> nn.Module:
    """A module that holds the loss. Its ``forward`` is defined from source, because scripts cannot be variadic.

    Each module has its own class: TorchScript would share a common one, and refuse to define ``forward`` again.
    """

    class Holder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.loss = loss

    return Holder()


def forward_source(unit: Unit) -> str:
    """The source of ``forward`` for one unit."""
    names = [i.name for i in unit.taken]
    leaves = [i.name for i in unit.differentiable] if unit.grad else []
    lines = [f'{name} = {name}.detach().requires_grad_(True)' for name in leaves]
    # losses take avg_factor as Optional[float]
    values = {i.name: f'float({i.name})' if i.role is Role.AVG_FACTOR else i.name for i in unit.inputs}
    lines += unit.run_source('self.loss', values)
    if unit.grad:
        factor = '' if unit.cotangent is None else f' * {unit.cotangent.name}'
        losses = ', '.join(f'(result_{name}{factor}).sum()' for name in unit.call.losses)
        lines.append(f'grads = torch.autograd.grad([{losses}], [{", ".join(leaves)}], allow_unused=True)')
    for at, name in enumerate(leaves):
        lines += [
            f'grad_{name} = grads[{at}]',
            f'if grad_{name} is None:',
            f'    grad_{name} = torch.zeros_like({name})',
        ]
    results = [f'result_{name}{".detach()" if unit.grad else ""}' for name in unit.results]
    lines.append(f'return {", ".join([*results, *(f"grad_{name}" for name in leaves)])}')
    head = f'def forward(self, {", ".join(f"{name}: Tensor" for name in names)}):\n'
    return head + ''.join(f'    {line}\n' for line in lines)


_MANGLED = re.compile(rb'(__torch__(?:\.\w+)*?)\.___torch_mangle_(\d+)(?=[.\n](\w+))')
_DEFINITION = re.compile(rb'^(?=class |def )', re.MULTILINE)


def canonical(archive: bytes) -> bytes:
    """The archive without source paths and independent of what else this process has scripted.

    TorchScript numbers the types of a class across the process (``___torch_mangle_7``), each in its own file. Here they
    are numbered within the archive, and each module's definitions are in one file, sorted.
    """
    with zipfile.ZipFile(io.BytesIO(archive)) as old:
        members = {m: old.read(m) for m in old.namelist() if not m.endswith('.debug_pkl')}
    members = {m: b'0' * 40 if m.endswith('serialization_id') else content for m, content in members.items()}
    pickled = next(m for m in members if m.endswith('/data.pkl'))
    code = sorted(m for m in members if '/code/' in m)
    renamed = _renumbering([members[pickled], *(members[m] for m in code)])

    def rename(content: bytes) -> bytes:
        return _MANGLED.sub(lambda found: renamed[found[1], found[2], found[3]], content)

    members[pickled] = rename(members[pickled])
    modules: dict[str, list[bytes]] = {}
    for member in code:
        text = members.pop(member)
        for definition in filter(None, _DEFINITION.split(text)):
            modules.setdefault(_home(member, definition, renamed), []).append(rename(definition))
    for member, definitions in modules.items():
        members[member] = b'\n'.join(d.rstrip() + b'\n' for d in sorted(definitions))
    return write_archive(members)


def _renumbering(texts: list[bytes]) -> dict[tuple[bytes, bytes, bytes], bytes]:
    """New qualified names for mangled ones, by (module, number, class). The first of a class gets its plain name."""
    renamed: dict[tuple[bytes, bytes, bytes], bytes] = {}
    counts: dict[tuple[bytes, bytes], int] = {}
    for text in texts:
        for found in _MANGLED.finditer(text):
            module, number, name = found[1], found[2], found[3]
            if (module, number, name) not in renamed:
                taken = counts.get((module, name), 0)
                renamed[module, number, name] = module + (b'.___torch_mangle_%d' % (taken - 1) if taken else b'')
                counts[module, name] = taken + 1
    return renamed


def _home(member: str, definition: bytes, renamed: dict[tuple[bytes, bytes, bytes], bytes]) -> str:
    """The code file a definition belongs to after renumbering."""
    root, _, path = member.partition('/code/')
    module, _, number = path.removesuffix('.py').replace('/', '.').partition('.___torch_mangle_')
    found = re.match(rb'(?:class|def) (\w+)', definition)
    if number and found:
        module = renamed[module.encode(), number.encode(), found[1]].decode()
    return f'{root}/code/{module.replace(".", "/")}.py'
