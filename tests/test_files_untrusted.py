"""Untrusted files: whatever they hold, the result is one line and an exit code, and no code is run."""

import io
import json
import os
import pickle
import re
import subprocess
import sys
import zipfile
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
import torch

import lossreg
from lossreg import artefact
from lossreg.__main__ import main
from lossreg.archive import ArchiveError, _is_guard, _is_size, read_archive, refuse_code
from lossreg.artefact import publish, read_manifest
from lossreg.config import find_losses
from lossreg.data_config import read_data_config
from lossreg.errors import ConfigError
from lossreg.runtimes import Pt2, TorchScript
from lossreg.untrusted import inside, parse_json, parse_yaml, read_file


class Marker:
    """A pickle that creates a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (os.mkdir, (str(self.path),))


@pytest.fixture
def ran(tmp_path):
    """The file that executed code would create; it must never exist."""
    path = tmp_path / 'ran'
    yield path
    assert not path.exists()


def run(capsys, *arguments):
    """The exit code and the lines of one command, which must not print a traceback."""
    code = main(list(map(str, arguments)))
    out, err = capsys.readouterr()
    assert 'Traceback' not in out + err
    return code, out, err


# Limits of text


DEEP = '[' * 200_000 + ']' * 200_000


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        (b'{"a": ', 'is not valid JSON'),
        (b'\xff\xfe', 'is not valid JSON.*utf-8'),
        (b'{"a": 1, "a": 2}', "'a' appears twice"),
        (b'{"a": NaN}', 'NaN is not a number'),
        (b'[-Infinity]', 'Infinity is not a number'),
        (b'[1e999]', '1e999 is too large'),
        (b'[' + b'9' * 5000 + b']', 'is not valid JSON'),
        (b'[' + b'9' * 50 + b']', 'larger than 64 bits'),
        (DEEP.encode(), 'nested more than 100 deep'),
        (b'[' * 102 + b']' * 102, 'nested more than 100 deep'),
        (b'', 'is not valid JSON'),
    ],
    ids=['cut', 'bytes', 'twice', 'NaN', 'infinity', 'float', 'long', 'integer', 'recursion', 'deep', 'empty'],
)
def test_json_is_bounded(text, message):
    with pytest.raises(ConfigError, match=message) as raised:
        parse_json(text, 'x.json')
    assert '\n' not in str(raised.value)


def test_json_within_the_bounds_is_itself():
    value = {'a': [1, -2.5, None, True, 'text'], 'b': {'c': [[]]}}
    assert parse_json(json.dumps(value).encode(), 'x') == value == parse_yaml(json.dumps(value).encode(), 'x')


LAUGHS = 'a: &a [x, x, x, x, x, x, x, x, x, x]\n' + ''.join(
    f'{new}: &{new} [{", ".join([f"*{old}"] * 10)}]\n' for old, new in zip('abcdefgh', 'bcdefghi', strict=True)
)
MERGES = 'a: &a {x: 1, y: 2}\n' + ''.join(
    f'{new}: &{new} {{<<: [{", ".join([f"*{old}"] * 10)}], k{new}: *{old}}}\n'
    for old, new in zip('abcdefgh', 'bcdefghi', strict=True)
)


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        ('a: !!python/object/apply:os.mkdir [{ran}]', r"line 1: .*tag .*python/object/apply:os\.mkdir.*plain values"),
        ('!!python/object/new:os.mkdir [{ran}]', 'plain values only'),
        ('a: !!python/name:os.system', 'plain values only'),
        ('a: !!python/module:os', 'plain values only'),
        ('a: !evil {{}}', 'plain values only'),
        (LAUGHS, 'more than 1000000 values'),
        (MERGES, 'more than 1000000 values'),
        ('a: &a [*a]', 'inside itself'),
        ('[' * 100_000, 'nesting|deep'),
        ('a: 1\na: 2', "'a' appears twice"),
        ('a: 1\n---\nb: 2', 'not valid YAML'),
        ('a: [', 'not valid YAML'),
        ('a: ' + '9' * 5000, 'not valid YAML'),
        ('a: ' + '9' * 40, '64 bits'),
        ('? [a, b]\n: 1', '(?i)hashable'),
    ],
    ids=[
        'apply', 'new', 'name', 'module', 'tag', 'laughs', 'merges', 'loop', 'deep', 'twice', 'two', 'cut', 'long',
        'integer', 'key',
    ],
)  # fmt: skip
def test_yaml_is_bounded_and_makes_plain_values_alone(text, message, ran):
    with pytest.raises(ConfigError, match=message) as raised:
        parse_yaml(text.replace('{ran}', str(ran)).encode(), 'x.yaml')
    assert '\n' not in str(raised.value)


def test_only_regular_files_of_a_bounded_size_are_read(tmp_path):
    os.mkfifo(tmp_path / 'pipe')
    with open(tmp_path / 'sparse', 'wb') as file:
        file.truncate(40 << 30)
    (tmp_path / 'file').write_bytes(b'12345')
    for name, message in (
        ('pipe', 'not a regular file'), ('.', 'not a regular file|cannot be read'), ('gone', 'No such file'),
        ('sparse', '42949672960 bytes'), ('x' * 300, 'too long'), ('a\0b', 'null'),
    ):  # fmt: skip
        with pytest.raises(ConfigError, match=message):
            read_file(tmp_path / name)
    with pytest.raises(ConfigError, match='not a regular file'):
        read_file(Path('/dev/zero'))
    assert read_file(tmp_path / 'file', limit=5) == b'12345'
    with pytest.raises(ConfigError, match='holds 5 bytes'):
        read_file(tmp_path / 'file', limit=4)


@pytest.mark.parametrize('name', ['../x', '/etc/passwd', 'a/../../x', '', 'out', 'out/x', 'a\0b', 'x' * 5000])
def test_names_in_data_lead_nowhere_else(name, tmp_path):
    folder = tmp_path / 'folder'
    folder.mkdir()
    (tmp_path / 'x').write_text('outside')
    (folder / 'out').symlink_to(tmp_path)
    with pytest.raises(ConfigError, match=r'is outside the folder|cannot be the name|cannot be read'):
        read_file(inside(folder, name))


def test_names_in_data_that_stay_are_taken(tmp_path):
    (tmp_path / 'real').mkdir()
    (tmp_path / 'link').symlink_to('real')
    for name in ('real', 'a/b', 'a/../b', 'link/x', '..hidden'):
        assert inside(tmp_path, name) == tmp_path / name


# Manifests


@pytest.fixture(scope='module')
def exported(tmp_path_factory):
    """A small loss with gradient in all formats, and its manifest."""
    folder = tmp_path_factory.mktemp('exported')
    for format in ('onnx', 'torchscript', 'pt2'):
        lossreg.export('TripletLoss', folder, format=format, grad=True)
    return folder


@pytest.fixture
def copied(exported, tmp_path):
    """A copy of the exported files that a test may change."""
    folder = tmp_path / 'folder'
    folder.mkdir()
    for file in exported.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    return folder


ONNX = 'TripletLoss.default.grad.onnx'


def changed(folder, name=ONNX, **changes):
    """Keeps one entry of the manifest, with changes; None removes a value."""
    path = folder / 'manifest.json'
    manifest = json.loads(path.read_text())
    entry = {**manifest['artefacts'][name], **changes}
    manifest['artefacts'] = {name: {key: value for key, value in entry.items() if value is not None}}
    path.write_text(json.dumps(manifest))
    return path


def failed(capsys, path):
    """The details of the failed rows; the command must exit with 1, and quickly."""
    code, out, _ = run(capsys, 'check', path, '--json')
    rows = json.loads(out)['rows']
    details = [row['detail'] for row in rows if row['status'] == 'fail']
    assert (code, bool(details)) == (1, True)
    assert all('\n' not in detail for detail in details)
    return details


ODD = [3, -1.5, '', 'x', [], {}, True, [['a']], {'a': {'b': 1}}]


@pytest.mark.parametrize(
    'key', ['sha256', 'bytes', 'format', 'kind', 'loss', 'config', 'variant', 'call', 'grad', 'inputs', 'outputs']
)
def test_an_entry_with_a_wrong_value_fails(key, copied, capsys):
    original = json.loads((copied / 'manifest.json').read_text())
    for value in ODD:
        if original['artefacts'][ONNX].get(key, '') == value:
            continue
        (copied / 'manifest.json').write_text(json.dumps(original))
        (detail,) = failed(capsys, changed(copied, **{key: value}))
        assert ONNX in detail, value
    if key != 'kind':
        (copied / 'manifest.json').write_text(json.dumps(original))
        assert failed(capsys, changed(copied, **{key: None})) == [
            f'{ONNX} has an entry that lossreg did not write: {key} is missing'
        ]


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({'grad': False}, 'grad is False in the manifest'),
        ({'outputs': ['loss']}, r"outputs is \['loss'\] in the manifest"),
        ({'loss': 'DiceLoss'}, "loss is 'DiceLoss' in the manifest"),
        ({'config': {'type': 'lossreg.TripletLoss', 'margin': 0.5}}, 'config is .* in the manifest, but the file says'),
        ({'config': {'type': 'lossreg.TripletLos'}}, "did you mean 'TripletLoss'"),
        ({'config': {'type': 'os.system'}}, 'no loss is registered'),
        ({'config': {'type': 'lossreg.TripletLoss', 'margins': 1}}, "no argument 'margins'"),
        ({'config': {'type': 'lossreg.TripletLoss', 'margin': 'wide'}}, 'cannot be built'),
        ({'config': {'type': 'lossreg.CrossEntropyLoss', 'class_weight': 'w.pkl'}}, 'data names it'),
        ({'call': 'nothing'}, "no call 'nothing'"),
        ({'format': 'pt2'}, 'ArchiveError: its archive is damaged'),
        ({'format': 'torchscript'}, 'ArchiveError: its archive is damaged'),
        ({'sha256': 'A' * 64}, '64 hexadecimal digits'),
        ({'bytes': 1}, 'not the file that was exported: it holds'),
        ({'kind': 'model'}, "kind 'model' is unknown"),
    ],
)
def test_an_entry_that_does_not_fit_its_file_fails(changes, message, copied, capsys, tmp_path, ran):
    (copied / 'w.pkl').write_bytes(pickle.dumps(Marker(ran)))
    details = failed(capsys, changed(copied, **changes))
    assert len(details) == 1
    assert re.search(message, details[0]), details


@pytest.mark.parametrize(
    'name', ['../outside.onnx', '/etc/passwd', 'link.onnx', 'x' * 5000, 'a\0b', 'pipe', 'folder', '']
)
def test_an_entry_leads_to_no_other_file(name, copied, capsys, tmp_path):
    """Not even if the hash is right."""
    data = (copied / ONNX).read_bytes()
    (tmp_path / 'outside.onnx').write_bytes(data)
    (copied / 'link.onnx').symlink_to(tmp_path / 'outside.onnx')
    os.mkfifo(copied / 'pipe')
    (copied / 'folder').mkdir()
    path = copied / 'manifest.json'
    entry = json.loads(path.read_text())['artefacts'][ONNX]
    path.write_text(json.dumps({'schema': 1, 'artefacts': {name: entry}}))
    (detail,) = failed(capsys, path)
    assert any(
        w in detail
        for w in ('does not exist', 'is outside the folder', 'cannot be the name', 'cannot be read', 'regular file')
    )


def test_a_huge_file_is_not_read(copied, capsys):
    with open(copied / ONNX, 'wb') as file:
        file.truncate(40 << 30)
    (detail,) = failed(capsys, changed(copied))
    assert 'holds 42949672960 bytes' in detail
    (detail,) = failed(capsys, changed(copied, bytes=40 << 30))
    assert 'at most' in detail


@pytest.mark.parametrize(
    ('text', 'code', 'message'),
    [
        ('{"schema": 1, "artefacts": {}}', 1, 'lists no artefacts'),
        ('{"schema": 1, "artefacts": []}', 2, 'not a manifest'),
        ('{"schema": 2, "artefacts": {}}', 2, 'schema is 2'),
        ('{"schema": true, "artefacts": {}}', 2, 'schema is True'),
        ('{"artefacts": {}}', 2, 'schema is None'),
        ('[]', 2, 'not a manifest'),
        ('{"schema": 1, "artefacts": {"a": 1, "a": 2}}', 2, "'a' appears twice"),
        ('{"schema": 1,', 2, 'not valid JSON'),
        (DEEP, 2, 'deep'),
        ('{"schema": 1, "artefacts": {"a.onnx": null}}', 1, 'a.onnx has an entry that is not an object'),
        (None, 2, 'does not exist'),
        ('pipe', 2, 'not a regular file'),
        ('folder', 2, 'manifest.json'),
        ('sparse', 2, 'bytes'),
    ],
)  # fmt: skip
def test_a_manifest_that_is_none(text, code, message, tmp_path, capsys):
    path = tmp_path / 'manifest.json'
    if text == 'pipe':
        os.mkfifo(path)
    elif text == 'folder':
        path.mkdir()
    elif text == 'sparse':
        with open(path, 'wb') as file:
            file.truncate(40 << 30)
    elif text is not None:
        path.write_text(text)
    got, out, err = run(capsys, 'check', path)
    assert got == code
    assert message in ' '.join((out + err).split())
    if code == 2:
        assert err.count('\n') == 1
        assert 'manifest' in err
    if code == 2 and text is not None:
        with pytest.raises(ConfigError, match='manifest'):  # and nothing is exported into its folder
            lossreg.export('TripletLoss', tmp_path)


@pytest.mark.parametrize('suffix', ['onnx', 'pt', 'pt2'])
@pytest.mark.parametrize('damage', ['cut', 'empty', 'metadata', 'deep', 'not JSON'])
def test_a_damaged_file_with_a_matching_hash_is_a_failure(suffix, damage, copied, capsys):
    name = f'TripletLoss.default.grad.{suffix}'
    data = (copied / name).read_bytes()
    if damage in ('cut', 'empty'):
        data = data[: len(data) // 2] if damage == 'cut' else b''
    else:
        data = with_metadata(data, {'metadata': '{"outputs": 3}', 'deep': DEEP, 'not JSON': '{'}[damage])
    (copied / name).write_bytes(data)
    path = changed(copied, name, sha256=sha256(data).hexdigest(), bytes=len(data))
    (detail,) = failed(capsys, path)
    assert detail.startswith(f'{name}: ')


def with_metadata(data, text):
    """The artefact with other metadata."""
    if data[:2] != b'PK':
        import onnx

        model = onnx.load_from_string(data)
        model.metadata_props[0].value = text
        return model.SerializeToString()
    members = read_archive(data)
    (name,) = (m for m in members if m.endswith('extra/lossreg.json'))
    return artefact.write_archive({**members, name: text.encode()})


def test_what_was_exported_passes(exported, capsys):
    code, out, _ = run(capsys, 'check', exported / 'manifest.json', '--json')
    rows = json.loads(out)['rows']
    assert code == 0
    assert {row['backend'] for row in rows} == {'ort-cpu', 'torchscript', 'pt2'}
    assert {row['status'] for row in rows} == {'pass'}


def test_an_onnx_file_names_no_other_file(copied, capsys):
    """A runtime would open it, and block if it is a pipe."""
    import onnx

    model = onnx.load_from_string((copied / ONNX).read_bytes())
    tensor = model.graph.initializer.add(name='other', data_type=onnx.TensorProto.FLOAT, dims=[1])
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key='location', value='../pipe')
    os.mkfifo(copied.parent / 'pipe')
    data = model.SerializeToString()
    (copied / ONNX).write_bytes(data)
    (detail,) = failed(capsys, changed(copied, sha256=sha256(data).hexdigest(), bytes=len(data)))
    assert 'other files' in detail


# Archives


def test_archives_that_would_grow_are_refused(exported):
    data = (exported / 'TripletLoss.default.grad.pt').read_bytes()
    for compress in (zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2):
        out = io.BytesIO()
        with zipfile.ZipFile(out, 'w', compress) as archive:
            archive.writestr('archive/bomb', b'\0' * 10_000_000)
        with pytest.raises(ArchiveError, match='compressed'):
            TorchScript(out.getvalue())
    with pytest.raises(ArchiveError, match='damaged'):
        Pt2(data[:100])


@pytest.mark.parametrize('member', ['sample inputs', 'custom object', 'compiled', 'upper case'])
def test_a_pt2_archive_runs_no_pickle_and_no_library(member, exported, ran):
    members = read_archive((exported / 'TripletLoss.default.grad.pt2').read_bytes())
    name = {
        'sample inputs': 'archive/data/sample_inputs/model.pt',
        'custom object': 'archive/data/constants/custom_obj_0',
        'compiled': 'archive/data/aotinductor/model/model.so',
        'upper case': 'archive/data/constants/CUSTOM_OBJ_0',
    }[member]
    content = io.BytesIO()
    torch.save(Marker(ran), content)
    with pytest.raises(Exception, match=r'(?i)may be code|weights') as raised:
        Pt2(artefact.write_archive({**members, name: content.getvalue()}))
    assert raised.value


@pytest.mark.parametrize(
    ('key', 'text'),
    [
        ('target', 'torch.load'),
        ('target', 'torch.hub.load'),
        ('target', 'torch.ops.aten.from_file.default'),
        ('target', 'torch.ops.mylib.run.default'),
        ('target', '_operator.methodcaller'),
        ('target', '#namespace:op'),
        ('expr_str', "__import__('os').mkdir('ran')"),
        ('expr_str', "Add('__import__(1)', 1)"),
        ('expr_str', 'Pow(Integer(9), Pow(Integer(9), Integer(9)))'),
        ('guards_code', "__import__('os').mkdir('ran')"),
        ('guards_code', "L['x'].size.__globals__"),
        ('name', "x): __import__('os').mkdir('ran') #"),
        ('in_spec', '[1, {"type": null, "context": "{\\"__enum__\\": true, \\"fqn\\": \\"os:x\\"}"}]'),
    ],
)
def test_a_pt2_graph_names_operators_alone(key, text):
    with pytest.raises(ArchiveError, match='may be code'):
        refuse_code({'archive/models/model.json': json.dumps({'nodes': [{key: text}]}).encode()})


def test_sizes_and_guards_of_our_own_are_let_through():
    assert _is_size("Add(Mul(Integer(2), Symbol('s13', positive=True, integer=True)), Integer(-1))")
    assert _is_size("Mul(Float('1.0e-8', precision=53), ToFloat(Symbol('s16', positive=True, integer=True)))")
    assert _is_guard("L['cls_score'].size()[2] == L['label'].size()[1]")
    assert _is_guard("min(L['x'].size()[3], L['x'].size()[3]*L['y'].size()[2]) > 0")
    assert not _is_size('x' * 20_000)
    assert not _is_guard('(')


# Configs


def write(folder, name, text):
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text if isinstance(text, str) else json.dumps(text))
    return path


GIOU = {'loss': {'type': 'lossreg.GIoULoss', 'loss_weight': 2.0}}
EVIL = 'import os\nos.mkdir({!r})\nloss = dict(type="lossreg.GIoULoss")\n'


@pytest.mark.parametrize('suffix', ['yaml', 'yml', 'json'])
@pytest.mark.parametrize(
    ('config', 'message'),
    [
        ({'_base_': 'evil.py', **GIOU}, "the base 'evil.py'.*in Python"),
        ({'_base_': ['base.json', './evil.py'], **GIOU}, "the base './evil.py'"),
        ({'_base_': 'below/base.json', **GIOU}, 'evil.py'),
        ({'_base_': 'mmdet::x.yaml', **GIOU}, 'the base'),
        ({'_base_': '../outside.json', **GIOU}, 'is outside the folder'),
        ({'_base_': 'link/outside.json', **GIOU}, 'is outside the folder'),
        ({'_base_': 3, **GIOU}, 'must be a path'),
        ({'_base_': [None], **GIOU}, 'must be a path'),
        ({'_base_': 'gone.json', **GIOU}, 'cannot be read'),
        ({'_base_': 'loop.json', **GIOU}, 'base of itself'),
        ({'_base_': ['base.json', 'same.json']}, 'appears in two bases'),
        ({'_base_': 'base.json', 'loss': {'type': {'a': 1}}}, '_delete_'),
        ({'custom_imports': {'imports': ['evil']}, **GIOU}, 'custom_imports.*--import MODULE'),
        ({'custom_imports': 'evil', **GIOU}, 'custom_imports'),
        ({'custom_imports': ['evil'], **GIOU}, 'custom_imports'),
        ({'_import_': ['evil'], **GIOU}, '_import_'),
        ({'default_scope': 3, **GIOU}, 'default_scope'),
        ([], 'must be a mapping'),
    ],
)
def test_a_config_of_data_runs_and_follows_nothing(suffix, config, message, tmp_path, ran, capsys, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path / 'configs'))
    folder = tmp_path / 'configs'
    write(folder, 'evil.py', EVIL.format(str(ran)))
    write(folder, 'base.json', GIOU)
    write(folder, 'same.json', GIOU)
    write(folder, 'below/base.json', {'_base_': '../evil.py'})
    write(folder, 'loop.json', {'_base_': 'loop.json'})
    write(tmp_path, 'outside.json', GIOU)
    (folder / 'link').symlink_to(tmp_path)
    path = write(folder, f'config.{suffix}', config)
    for command in ('check', 'export', 'migrate'):
        code, out, err = run(capsys, command, path)
        assert (code, out, err.count('\n')) == (2, '', 1)
        assert re.search(message, err), err


def test_bases_of_data_are_merged_as_mmengine_merges_them(tmp_path):
    from mmengine.config import Config

    write(tmp_path, 'base.yaml', 'a: {x: 1, y: {z: 2}}\nkept: [1, 2]\nlist: [1]\ngone: {p: 1}\n')
    write(tmp_path, 'below/other.json', {'b': {'q': 1}, '_base_': 'third.yml'})
    write(tmp_path, 'below/third.yml', 'c: 1\n')
    text = (
        '_base_: [base.yaml, below/other.json]\na: {y: {w: 3}}\nlist: [2]\ngone: {_delete_: true, r: 2}\nnew: {s: 1}\n'
    )
    path = write(tmp_path, 'config.yaml', text)
    expected = Config.fromfile(path, use_environment_variables=False).to_dict()
    assert read_data_config(path) == expected
    assert expected['gone'] == {'r': 2}


def test_variables_in_data_stay_text(tmp_path, monkeypatch):
    monkeypatch.setenv('SECRET', '1')
    path = write(tmp_path, 'config.yaml', "a: '{{ fileBasename }}'\nb: '{{$SECRET:2}}'\n")
    assert read_data_config(path) == {'a': '{{ fileBasename }}', 'b': '{{$SECRET:2}}'}


@pytest.mark.parametrize('base', ['base.yaml', 'base.json'])
def test_bases_in_data_of_a_python_config_are_data_too(base, tmp_path, ran):
    write(tmp_path, 'base.yaml', f'a: !!python/object/apply:os.mkdir [{ran}]\n')
    write(tmp_path, 'evil.py', EVIL.format(str(ran)))
    write(tmp_path, 'base.json', {'_base_': 'evil.py'})
    path = write(tmp_path, 'config.py', f'_base_ = {base!r}\nloss = dict(type="lossreg.GIoULoss")\n')
    with pytest.raises(ConfigError, match=r'plain values|not data'):
        find_losses(path)


def test_a_python_config_with_a_base_in_yaml_is_read_as_before(tmp_path):
    write(tmp_path, 'base.yaml', 'loss: {type: lossreg.GIoULoss, loss_weight: 2.0}\n')
    path = write(tmp_path, 'config.py', "_base_ = 'base.yaml'\nloss = dict(eps=1e-3)\n")
    (found,) = find_losses(path)
    assert found.options == {'loss_weight': 2.0, 'eps': 1e-3}


@pytest.mark.parametrize('suffix', ['py', 'yaml', 'json'])
def test_a_config_that_is_no_file_is_told(suffix, tmp_path, capsys):
    os.mkfifo(tmp_path / f'pipe.{suffix}')
    for target in (tmp_path / f'pipe.{suffix}', f'{"x" * 300}.{suffix}'):
        code, _, err = run(capsys, 'check', target)
        assert (code, err.count('\n')) == (2, 1)


# Weights in files

WEIGHTS = [0.5, 1.0, 2.0]


def weights_in(folder, ran):
    np.save(folder / 'w.npy', np.array(WEIGHTS, np.float32))
    write(folder, 'w.json', WEIGHTS)
    write(folder, 'w.yaml', json.dumps(WEIGHTS))
    (folder / 'w.pkl').write_bytes(pickle.dumps(WEIGHTS))
    (folder / 'evil.pkl').write_bytes(pickle.dumps(Marker(ran)))
    np.save(folder / 'evil.npy', np.array([Marker(ran)]), allow_pickle=True)
    write(folder, 'evil.yaml', f'!!python/object/apply:os.mkdir [{ran}]')
    write(folder, 'text.json', {'a': 'b'})
    (folder / 'cut.npy').write_bytes((folder / 'w.npy').read_bytes()[:20])


def config_with(weight):
    return {'loss': {'type': 'lossreg.CrossEntropyLoss', 'class_weight': str(weight)}}


@pytest.mark.parametrize('file', ['w.npy', 'w.json', 'w.yaml'])
def test_data_may_name_weights_in_its_folder(file, tmp_path, ran, monkeypatch):
    weights_in(tmp_path, ran)
    folder = tmp_path / 'elsewhere'
    folder.mkdir()
    for given, working in ((file, tmp_path), (file, folder), (tmp_path / file, folder)):
        monkeypatch.chdir(working)
        (found,) = find_losses(write(tmp_path, 'config.yaml', config_with(given)))
        request = found.request()
        assert request.loss.class_weight.tolist() == WEIGHTS
        assert list(request.config['class_weight']) == WEIGHTS


@pytest.mark.parametrize(
    ('file', 'message'),
    [
        ('w.pkl', 'pickle.*would run code'),
        ('evil.pkl', 'pickle.*would run code'),
        ('evil.npy', 'allow_pickle'),
        ('evil.yaml', 'plain values'),
        ('text.json', 'list of numbers|lists of numbers'),
        ('cut.npy', 'cannot be read'),
        ('gone.npy', 'cannot be read'),
        ('../w.npy', 'is outside the folder'),
        ('http://localhost/w.json', 'cannot be read|leads out'),
    ],
)
def test_weights_that_data_may_not_name(file, message, tmp_path, ran, capsys):
    weights_in(tmp_path, ran)
    folder = tmp_path / 'configs'
    folder.mkdir()
    if not file.startswith(('..', 'http')):
        weights_in(folder, ran)
    path = write(folder, 'config.json', config_with(file))
    assert run(capsys, 'export', path, '--out', tmp_path / 'out')[0] == 2
    code, out, _ = run(capsys, 'check', path, '--json')
    details = [row['detail'] for row in json.loads(out)['rows']]
    assert code == 1
    assert len(details) == 1
    assert re.search(message, details[0]), details


def test_python_reads_weights_as_the_hosts_do_but_never_unpickles_arrays_or_yaml(tmp_path, ran):
    weights_in(tmp_path, ran)
    for file in ('w.npy', 'w.json', 'w.yaml', 'w.pkl'):
        loss = lossreg.build_loss({'type': 'CrossEntropyLoss', 'class_weight': str(tmp_path / file)})
        assert loss.class_weight.tolist() == WEIGHTS
        assert loss.class_weight.dtype == torch.float32
    for file in ('evil.npy', 'evil.yaml', 'cut.npy', 'gone.json'):
        with pytest.raises(ConfigError, match=file):
            lossreg.build_loss({'type': 'CrossEntropyLoss', 'class_weight': str(tmp_path / file)})


def test_an_artefact_holds_the_numbers_of_a_weight_not_its_file(tmp_path, ran, capsys):
    weights_in(tmp_path, ran)
    config = {'type': 'CrossEntropyLoss', 'class_weight': str(tmp_path / 'w.npy')}
    lossreg.export(config, tmp_path / 'out', format='torchscript', call='labels')
    (tmp_path / 'w.npy').unlink()
    (entry,) = read_manifest(tmp_path / 'out')['artefacts'].values()
    assert entry['config']['class_weight'] == WEIGHTS
    assert run(capsys, 'check', tmp_path / 'out' / 'manifest.json', '--json')[0] == 0


@pytest.mark.parametrize('options', [{'loss_weight': 'heavy'}, {'loss_weight': {}}, {'eps': []}, {3: 4}])
def test_options_of_a_strange_type_are_one_line(options, tmp_path, capsys):
    path = write(tmp_path, 'c.yaml', '')
    import yaml

    path.write_text(yaml.safe_dump({'loss': {'type': 'lossreg.GIoULoss', **options}}))
    code, out, err = run(capsys, 'export', path, '--out', tmp_path, '--format', 'torchscript')
    assert code in (1, 2)
    assert (out, err.count('\n')) == ('', 1)


# Several processes, full disks

EXPORT = """
import sys
from pathlib import Path
from lossreg.artefact import publish, sha256
folder, number = Path(sys.argv[1]), int(sys.argv[2])
for turn in range(12):
    data = bytes([number]) * (100_000 + turn)
    files = {name: data + name.encode() for name in ('shared.bin', 'other.bin', f'{number}.bin')}
    publish(folder, files, {name: {'sha256': sha256(content)} for name, content in files.items()})
"""


def test_processes_that_write_one_name_leave_file_and_manifest_in_agreement(tmp_path):
    command = [sys.executable, '-c', EXPORT, str(tmp_path)]
    started = [subprocess.Popen([*command, str(number)], stderr=subprocess.PIPE) for number in range(2)]
    assert [process.communicate()[1] for process in started] == [b'', b'']
    artefacts = read_manifest(tmp_path)['artefacts']
    assert artefacts.keys() == {'shared.bin', 'other.bin', '0.bin', '1.bin'}
    for name, entry in artefacts.items():
        assert sha256((tmp_path / name).read_bytes()).hexdigest() == entry['sha256']
    assert {file.name for file in tmp_path.iterdir()} == {*artefacts, 'manifest.json'}


def test_threads_that_write_one_name_agree_too(tmp_path):
    def write_once(number):
        data = bytes([number]) * 1000
        publish(tmp_path, {'a': data}, {'a': {'sha256': sha256(data).hexdigest()}})

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(write_once, range(16)))
    entry = read_manifest(tmp_path)['artefacts']['a']
    assert sha256((tmp_path / 'a').read_bytes()).hexdigest() == entry['sha256']


def test_a_folder_that_stays_locked_is_told(tmp_path, monkeypatch):
    from filelock import SoftFileLock

    monkeypatch.setattr(artefact, 'LOCK_SECONDS', 0.2)
    with (
        SoftFileLock(tmp_path / artefact.LOCK),
        pytest.raises(ConfigError, match=r'another process .* delete .*\.lock'),
    ):
        publish(tmp_path, {'a': b''}, {})
    assert not list(tmp_path.iterdir())


def test_a_process_killed_between_file_and_manifest_is_found_by_the_next_check(copied, capsys, monkeypatch):
    """The file is new, but its entry is old."""
    replace = os.replace

    def killed(source, target):
        if str(target).endswith('manifest.json'):
            raise KeyboardInterrupt
        replace(source, target)

    monkeypatch.setattr(os, 'replace', killed)
    with pytest.raises(KeyboardInterrupt):
        publish(copied, {ONNX: b'new'}, {ONNX: {}})
    monkeypatch.undo()
    assert {file.name for file in copied.iterdir()} == {
        f'TripletLoss.default.grad.{s}' for s in ('onnx', 'pt', 'pt2')
    } | {'manifest.json'}
    (detail,) = failed(capsys, copied / 'manifest.json')
    assert f'{ONNX} is not the file that was exported' in detail


def test_nothing_changes_where_the_disk_is_full(copied, monkeypatch):
    before = {file.name: file.read_bytes() for file in copied.iterdir()}
    chmod = os.chmod

    def full(path, mode):
        if sum(1 for _ in copied.iterdir()) > len(before) + 2:  # the lock and the first file
            raise OSError(28, 'No space left on device')
        chmod(path, mode)

    monkeypatch.setattr(os, 'chmod', full)
    with pytest.raises(ConfigError, match='No space left'):
        publish(copied, {'a': b'1', 'b': b'2'}, {'a': {}})
    assert {file.name: file.read_bytes() for file in copied.iterdir()} == before


def test_a_device_is_not_replaced_by_a_report(tmp_path):
    (tmp_path / 'folder').mkdir()
    os.mkfifo(tmp_path / 'pipe')
    for name in ('folder', 'pipe'):
        with pytest.raises(ConfigError, match='not a regular file'):
            artefact.write_atomically(tmp_path / name, b'')


@pytest.mark.parametrize('arguments', [['list', '--json'], ['--help']])
def test_a_full_disk_behind_stdout_is_one_line(arguments):
    with open('/dev/full', 'w') as full:
        command = [sys.executable, '-m', 'lossreg', *arguments]
        buffered = {**os.environ, 'PYTHONUNBUFFERED': ''}
        process = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, env=buffered)
    assert process.returncode == 2
    assert process.stderr == 'lossreg: cannot write the output: No space left on device\n'
