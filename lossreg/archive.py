"""Checks artefacts before they are loaded: a pt2 archive must not hold code, an ONNX model must not name other files.

A pt2 file describes a graph, but ``torch.export.load`` unpickles some of its members, evaluates its size expressions
and guards as Python, and looks up its operators by name in all of torch. lossreg's exports need little of that, and
everything else is refused.
"""

from __future__ import annotations

import ast
import io
import re
import zipfile
from collections.abc import Iterator, Mapping
from typing import Any

from lossreg.untrusted import parse_json


class ArchiveError(ValueError):
    """An archive that is damaged, or that would run code when loaded."""


def read_archive(data: bytes) -> dict[str, bytes]:
    """The members of an archive written by torch.

    Raises:
        ArchiveError: it is not an archive, or members are compressed, overlap or share a name.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = archive.infolist()
            names = {member.filename.lower() for member in members}  # torch looks them up in lower case
            stored = all(member.compress_type == zipfile.ZIP_STORED for member in members)
            if not stored or sum(member.file_size for member in members) > len(data) or len(names) < len(members):
                raise ArchiveError('its archive is not one that torch writes: compressed, or its members overlap')
            return {member.filename: archive.read(member) for member in members}
    except (zipfile.BadZipFile, OSError, EOFError, ValueError, RuntimeError, NotImplementedError) as error:
        if isinstance(error, ArchiveError):
            raise
        raise ArchiveError(f'its archive is damaged: {error}') from error


MEMBER = re.compile(
    r'[^/]+/(archive_format|archive_version|byteorder|\.data/\w+|extra/[\w.]+|models/model\.json'
    r'|data/sample_inputs/model\.pt|data/(weights|constants)/(model_\w+_config\.json|(weight|tensor)_\d+))',
    re.ASCII,
)
"""The members of a pt2 archive that hold no compiled code or pickled objects."""

TARGET = re.compile(
    r'torch\.ops\.(aten|prims)\.(?!from_file\b)\w+\.\w+|torch\.ops\.higher_order\.\w+|torch\.sym_\w+|torch\._check'
    r'|math\.\w+|_operator\.(add|sub|mul|truediv|floordiv|mod|pow|neg|abs|eq|ne|lt|le|gt|ge|and_|or_|not_|getitem)|',
    re.ASCII,
)
"""The operators of a graph. ``from_file`` would open a file."""

TEXT = re.compile(r'[\w.+:/ -]*', re.ASCII)
"""All other strings. Names become the source of a function, so none may hold a bracket or a newline."""

SIZE_FUNCTIONS = re.compile(
    'Symbol|Integer|Rational|Float|Add|Mul|Pow|PowByNatural|Max|Min|Mod|PythonMod|FloorDiv|CleanDiv|CeilDiv'
    '|FloatTrueDiv|IntTrueDiv|ToFloat|TruncToInt|FloorToInt|CeilToInt|ModularIndexing|Where|Piecewise|Identity'
    '|ExprCondPair|Tuple|Eq|Ne|Equality|Unequality|Relational|StrictLessThan|StrictGreaterThan|LessThan|GreaterThan'
    '|And|Or|Not|BooleanTrue|BooleanFalse|Abs'
)
"""The functions in a size expression, by SymPy's and torch's names."""

STRING = re.compile(r'[a-z]\w{0,40}|-?[0-9.]{1,40}(e-?[0-9]{1,4})?', re.ASCII)
"""A string in an expression: the name of a symbol, or a number."""

PLAIN_NODES = (
    ast.Expression, ast.Constant, ast.Load, ast.UnaryOp, ast.USub, ast.Not, ast.BinOp, ast.Add, ast.Sub, ast.Mult,
    ast.FloorDiv, ast.Mod, ast.Compare, ast.Eq, ast.NotEq, ast.Lt, ast.LtE, ast.Gt, ast.GtE, ast.BoolOp, ast.And,
    ast.Or,
)  # fmt: skip


def refuse_code(members: Mapping[str, bytes]) -> None:
    """Raises ArchiveError if loading these members of a pt2 archive would run code."""
    for name, content in members.items():
        if not MEMBER.fullmatch(name):
            raise ArchiveError(f'its member {name[:80]!r} may be code, which lossreg does not export')
        if name.endswith('.json') and '/models/' in name:
            for key, text in _strings(parse_json(content, 'its graph', finite=False)):
                _refuse_text(key, text)


def _strings(value: Any, key: str = '') -> Iterator[tuple[str, str]]:
    """All strings, each with its key; the keys themselves have none."""
    if isinstance(value, str):
        yield key, value
    elif isinstance(value, list):
        for item in value:
            yield from _strings(item, key)
    elif isinstance(value, dict):
        for name, item in value.items():
            yield '', name
            yield from _strings(item, name)


def _refuse_text(key: str, text: str) -> None:
    if key == 'target':
        good = TARGET.fullmatch(text) is not None
    elif key == 'expr_str':
        good = _is_size(text)
    elif key == 'guards_code':
        good = _is_guard(text)
    elif key in ('in_spec', 'out_spec', 'context') and text[:1] in ('[', '{'):
        # JSON in a string, from which an enumeration would be imported by name
        for inner, part in _strings(parse_json(text, 'its graph')):
            _refuse_text(inner, part)
        good = '__enum__' not in text
    else:
        good = TEXT.fullmatch(text) is not None
    if not good:
        raise ArchiveError(f'{key or "a name"} {text[:80]!r} in its graph may be code, which lossreg does not export')


def _is_size(text: str) -> bool:
    """Whether an expression has only numbers, symbols and :data:`SIZE_FUNCTIONS`. SymPy evaluates strings in it."""
    for node in _nodes(text):
        if isinstance(node, ast.Call):
            if not isinstance(node.func, ast.Name) or not SIZE_FUNCTIONS.fullmatch(node.func.id):
                return False
            # a power of numbers could exhaust memory
            if node.func.id.startswith('Pow') and not (node.args and 'Symbol' in ast.dump(node.args[0])):
                return False
        elif isinstance(node, ast.Constant):
            if isinstance(node.value, str) and not STRING.fullmatch(node.value):
                return False
        elif isinstance(node, ast.Name):
            if not SIZE_FUNCTIONS.fullmatch(node.id) and not re.fullmatch(r'[su]\d+|oo|int_oo|true|false', node.id):
                return False
        elif not isinstance(node, (*PLAIN_NODES, ast.keyword)):
            return False
    return True


def _is_guard(text: str) -> bool:
    """Whether a condition compares sizes of inputs: ``L['pred'].size()[0] == L['target'].size()[0]``."""
    for node in _nodes(text):
        if isinstance(node, ast.Call):
            is_size = isinstance(node.func, ast.Attribute) and not node.args and not node.keywords
            if not is_size and not isinstance(node.func, ast.Name):
                return False
        elif isinstance(node, ast.Attribute):
            if node.attr != 'size' or not isinstance(node.value, ast.Subscript):
                return False
        elif isinstance(node, ast.Name):
            if node.id not in ('L', 'min', 'max'):
                return False
        elif not isinstance(node, (*PLAIN_NODES, ast.Subscript)):
            return False
    return True


def _nodes(text: str) -> list[ast.AST]:
    """The nodes of an expression; a node that is never allowed if it is invalid or too long."""
    try:
        return list(ast.walk(ast.parse(text, mode='eval'))) if len(text) < 10_000 else [ast.AST()]
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return [ast.AST()]


def refuse_other_files(model: bytes) -> None:
    """Raises ArchiveError if an ONNX model keeps tensors in other files, which a runtime would open."""
    import onnx

    graphs = [onnx.load_from_string(model).graph]
    while graphs:
        graph = graphs.pop()
        attributes = [attribute for node in graph.node for attribute in node.attribute]
        tensors = [*graph.initializer, *(a.t for a in attributes), *(t for a in attributes for t in a.tensors)]
        tensors += [part for sparse in graph.sparse_initializer for part in (sparse.values, sparse.indices)]
        if any(tensor.data_location == onnx.TensorProto.EXTERNAL for tensor in tensors):
            raise ArchiveError('it keeps tensors in other files, which lossreg does not')
        graphs += [*(a.g for a in attributes if a.HasField('g')), *(g for a in attributes for g in a.graphs)]
