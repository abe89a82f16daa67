"""Exported files: their bytes, names, shapes and metadata, and how they are written."""

import io
import json
import os
import re
import sys
import tempfile
import zipfile
from hashlib import sha256
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from interpreter import run_python

import lossreg
from lossreg import exporters
from lossreg.artefact import METADATA_KEY, SUFFIXES
from lossreg.compare import Agreement
from lossreg.errors import CheckError, ConfigError
from lossreg.registry import build_loss
from lossreg.runtimes import Pt2
from lossreg.samples import draw

FORMATS = tuple(SUFFIXES)
CASES = {'GIoULoss': 'boxes', 'CrossEntropyLoss': 'labels', 'KLDiscretLoss': 'tensors'}
every_case = pytest.mark.parametrize('name', CASES)
every_format = pytest.mark.parametrize('format', FORMATS)


def members(data):
    """The files in an archive, or the file itself."""
    if not zipfile.is_zipfile(io.BytesIO(data)):
        return {'': data}
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


# Bytes

EXPORT_IN_ANOTHER_ORDER = """
import hashlib, json, sys
from dataclasses import replace
from lossreg.exporters import build
from lossreg.request import Request
digests = {}
for name, call in reversed(json.loads(sys.argv[1]).items()):
    request = Request.of(name, call_name=call)
    unit = replace(request.unit(request.calls()[0], ()), grad=True)
    built = build(unit, ['onnx', 'pt2', 'torchscript'])
    digests[name] = {format: hashlib.sha256(data).hexdigest() for format, data in built.items()}
print(json.dumps(digests))
"""


def digests(built):
    return {format: sha256(built[format]).hexdigest() for format in FORMATS}


def test_same_bytes_in_another_process(exported, tmp_path):
    """With other hash seeds, from another folder, after other exports."""
    there = run_python(EXPORT_IN_ANOTHER_ORDER, json.dumps(CASES), cwd=tmp_path, PYTHONHASHSEED='7')
    here = {name: digests(exported(name, grad=True, call=call)) for name, call in CASES.items()}
    assert json.loads(there) == here


def test_same_bytes_again_in_one_process(exported, unit_of):
    again = exporters.build(unit_of('GIoULoss', call='boxes', grad=True), FORMATS)
    assert digests(again) == digests(exported('GIoULoss', grad=True, call='boxes'))


def test_same_bytes_under_another_name(tmp_path):
    first, second = (exporters.export('DiceLoss', tmp_path / name, format='torchscript') for name in ('a.pt', 'bc.pt'))
    assert first.read_bytes() == second.read_bytes()


ABSOLUTE_SOURCE = re.compile(rb'(?<![\w.])/[\w./-]+\.py\b')


def paths_of_this_machine(data):
    places = {lossreg.__path__[0], sys.prefix, str(Path.home()), tempfile.gettempdir(), 'site-packages', os.getcwd()}
    texts = [data, *members(data).values()]
    named = {place for place in places for text in texts if place.encode() in text}
    return named | {found for text in texts for found in ABSOLUTE_SOURCE.findall(text)}


@every_format
@every_case
def test_no_path_of_this_machine(exported, name, format):
    assert not paths_of_this_machine(exported(name, grad=True, call=CASES[name])[format])


def test_a_path_would_be_found():
    scripted = io.BytesIO()
    torch.jit.save(torch.jit.script(build_loss('GIoULoss')), scripted)
    assert paths_of_this_machine(scripted.getvalue())
    assert paths_of_this_machine(b'File "/opt/x/loss.py", line 3')


# ONNX

RUN_WITHOUT_TORCH = """
import sys
for name in ('torch', 'lossreg', 'onnx', 'mmengine'):
    sys.modules[name] = None
import numpy as np, onnxruntime
session = onnxruntime.InferenceSession(sys.argv[1], providers=['CPUExecutionProvider'])
data = np.load(sys.argv[2])
outputs = [o.name for o in session.get_outputs()]
for n in (0, 1, 2, 9):
    feeds = {i.name: data[f'{n}/{i.name}'] for i in session.get_inputs()}
    for name, value in zip(outputs, session.run(None, feeds)):
        np.testing.assert_allclose(value, data[f'{n}/{name}'], rtol=1e-5, atol=1e-6, err_msg=f'{name} at N = {n}')
print(*outputs)
"""


@every_case
def test_onnx_needs_onnxruntime_alone_and_takes_any_batch(exported, unit_of, tmp_path, name):
    unit = unit_of(name, call=CASES[name], grad=True)
    (tmp_path / 'loss.onnx').write_bytes(exported(name, grad=True, call=CASES[name])['onnx'])
    data = {}
    for n in (0, 1, 2, 9):
        drawn = draw(unit, sizes={**unit.sizes(), unit.batch: n})
        inputs = {key: t.double() if t.is_floating_point() else t for key, t in drawn.items()}
        leaves = {i.name: inputs[i.name].requires_grad_() for i in unit.differentiable}
        loss = unit.loss(**unit.arguments(inputs))
        gradients = torch.autograd.grad(loss, list(leaves.values()))
        results = {'loss': loss, **{f'grad_{key}': g for key, g in zip(leaves, gradients, strict=True)}}
        data |= {f'{n}/{key}': narrow(t) for key, t in {**inputs, **results}.items()}
    np.savez(tmp_path / 'data.npz', **data)
    printed = run_python(RUN_WITHOUT_TORCH, tmp_path / 'loss.onnx', tmp_path / 'data.npz', cwd=tmp_path)
    assert printed.split() == list(unit.outputs)


def narrow(t):
    return (t.detach().float() if t.is_floating_point() else t).numpy()


@every_case
def test_onnx_signature(exported, unit_of, name):
    unit = unit_of(name, call=CASES[name], grad=True)
    model = onnx.load_from_string(exported(name, grad=True, call=CASES[name])['onnx'])
    assert [(i.name, dims_of(i)) for i in model.graph.input] == [(i.name, list(i.dims)) for i in unit.inputs]
    assert [o.name for o in model.graph.output] == list(unit.outputs)
    assert {node.domain for node in model.graph.node} == {''}
    assert [(o.domain, o.version) for o in model.opset_import] == [('', 18)]
    assert model.ir_version == 8
    assert not model.functions


def dims_of(value):
    return [d.dim_param or str(d.dim_value) for d in value.type.tensor_type.shape.dim]


@pytest.mark.parametrize(('name', 'call'), [('AdaptiveLogSoftmaxWithLoss', 'unbatched'), ('SwAVLoss', 'features')])
def test_onnxruntime_warns_of_nothing(exported, capfd, name, call):
    data = exported(name, grad=True, call=call)['onnx']
    onnxruntime.InferenceSession(data, providers=['CPUExecutionProvider'])
    assert capfd.readouterr().err == ''


def test_dimensions_an_instance_fixes_are_numbers(exported):
    model = onnx.load_from_string(
        exported('CrossEntropyLoss', variant='class_weight', call='labels', optional=('weight', 'avg_factor'))['onnx']
    )
    shapes = {i.name: dims_of(i) for i in model.graph.input}
    assert shapes == {'cls_score': ['N', '4'], 'label': ['N'], 'weight': ['N'], 'avg_factor': []}


def test_opset_20(tmp_path):
    path = exporters.export('GIoULoss', tmp_path, opset=20)
    assert onnx.load(path).opset_import[0].version == 20
    entry = manifest(tmp_path)[path.name]
    assert entry['opset'] == 20
    assert entry['oldest_onnxruntime'] is entry['oldest_onnxruntime_empty_batch'] is None, 'nobody has tested any'


# TorchScript and pt2


@every_case
def test_torchscript_signature(exported, unit_of, name):
    module = torch.jit.load(io.BytesIO(exported(name, grad=True, call=CASES[name])['torchscript']))
    expected = ['self', *(i.name for i in unit_of(name, call=CASES[name]).inputs)]
    assert [a.name for a in module.forward.schema.arguments] == expected
    assert not list(module.named_parameters())


@every_case
def test_pt2_guards_its_shapes(exported, unit_of, name):
    unit = unit_of(name, call=CASES[name])
    run = Pt2(exported(name, grad=True, call=CASES[name])['pt2'])
    inputs = draw(unit)
    assert run(inputs)['loss'].shape == ()
    last = unit.inputs[-1].name
    for rows in (1, 4):
        with pytest.raises((RuntimeError, AssertionError), match=r'(?i)guard'):
            run({**inputs, last: torch.ones_like(inputs[last][:1]).repeat(rows, *[1] * (inputs[last].dim() - 1))})


# Metadata and manifest


def metadata_of(data, format):
    if format == 'onnx':
        return {p.key: p.value for p in onnx.load_from_string(data).metadata_props}[METADATA_KEY]
    found = {METADATA_KEY: ''}
    if format == 'torchscript':
        torch.jit.load(io.BytesIO(data), _extra_files=found)
    else:
        torch.export.load(io.BytesIO(data), extra_files=found)
    return found[METADATA_KEY]


@every_format
def test_metadata(exported, format):
    found = json.loads(metadata_of(exported('CrossEntropyLoss', grad=True, call='labels')[format], format))
    version = found.pop('lossreg')
    assert re.fullmatch(r'\d+\.\d+\.\d+.*', version)
    assert found == {
        'schema': 1,
        'license': 'Apache-2.0',
        'loss': 'CrossEntropyLoss',
        'config': {'type': 'lossreg.CrossEntropyLoss'},
        'variant': 'default',
        'call': 'labels',
        'grad': True,
        'inputs': [
            {'name': 'cls_score', 'role': 'logits', 'shape': ['N', 'C'], 'dtype': 'float32'},
            {'name': 'label', 'role': 'labels', 'shape': ['N'], 'dtype': 'int64'},
        ],
        'outputs': ['loss', 'grad_cls_score'],
    }


def manifest(folder):
    content = json.loads((folder / 'manifest.json').read_text())
    assert content['schema'] == 1
    return content['artefacts']


def test_manifest(tmp_path):
    onnx_file = exporters.export({'type': 'DiceLoss', 'loss_weight': 3.0}, tmp_path, grad=True, optional='all')
    script = exporters.export('GIoULoss', tmp_path, format='torchscript')
    assert re.fullmatch(r'DiceLoss\.[0-9a-f]{8}\.weight\.avg_factor\.grad\.onnx', onnx_file.name)
    assert script.name == 'GIoULoss.default.boxes.pt'
    assert {p.name for p in tmp_path.iterdir()} == {onnx_file.name, script.name, 'manifest.json'}
    entries = manifest(tmp_path)
    assert entries.keys() == {onnx_file.name, script.name}
    for file in (onnx_file, script):
        assert entries[file.name]['sha256'] == sha256(file.read_bytes()).hexdigest()
        assert entries[file.name]['bytes'] == file.stat().st_size
    entry = entries[onnx_file.name]
    assert entry['config'] == {'type': 'lossreg.DiceLoss', 'loss_weight': 3.0}
    assert [i['name'] for i in entry['inputs']] == ['pred', 'target', 'weight', 'avg_factor']
    assert entry['outputs'] == ['loss', 'grad_pred']
    assert (entry['opset'], entry['format'], entry['grad']) == (18, 'onnx', True)
    assert (entry['oldest_onnxruntime'], entry['oldest_onnxruntime_empty_batch']) == ('1.16.3', '1.16.3')
    assert 'fixed' not in entry
    assert (
        entry['versions']['torch'] == torch.__version__.partition('+')[0]
        or entry['versions']['torch'] == torch.__version__
    )
    assert 0 < entry['measured']['max_rel'] < 1e-4
    assert entry['measured']['cases'] >= 4
    assert 'opset' not in entries[script.name]


# A file is complete and verified, or not written


def test_failed_verification_leaves_the_good_file(tmp_path, monkeypatch):
    path = exporters.export('DiceLoss', tmp_path, format='torchscript')
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    monkeypatch.setattr(exporters, 'verify', lambda *arguments: Agreement(1.0, 1.0, 'planted'))
    with pytest.raises(CheckError, match=rf'{path.name} was not written: planted'):
        exporters.export('DiceLoss', tmp_path, format='torchscript')
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before


def test_a_file_that_cannot_run_is_not_written(tmp_path, monkeypatch):
    class Refuses:
        def __init__(self, *arguments):
            pass

        def __call__(self, inputs):
            raise AssertionError('Guard failed: N != 1')

    monkeypatch.setattr(exporters, 'load', Refuses)
    with pytest.raises(CheckError, match=r'on ordinary.* inputs it fails: Guard failed: N != 1$'):
        exporters.export('DiceLoss', tmp_path, format='torchscript')
    assert not list(tmp_path.iterdir())


def test_failed_write_leaves_the_good_file(tmp_path, monkeypatch):
    exporters.export('DiceLoss', tmp_path, format='torchscript')
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}

    def no_space(*arguments):
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr(os, 'replace', no_space)
    with pytest.raises(ConfigError, match=r'cannot write .*: No space left on device'):
        exporters.export('DiceLoss', tmp_path, format='torchscript')
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before


def test_folder_that_cannot_be_written(tmp_path):
    (tmp_path / 'file').write_text('in the way')
    with pytest.raises(ConfigError, match=f'cannot write to {tmp_path / "file"}'):
        exporters.export('DiceLoss', tmp_path / 'file', format='torchscript')


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        ({'format': 'tflite'}, "unknown format 'tflite'"),
        ({'call': 'triplets'}, "no call 'triplets' with this config; it has boxes, coordinate_weights"),
        ({'optional': ['wieght']}, "no optional input 'wieght' here; it has weight, avg_factor"),
        ({'path': 'loss.pt'}, 'loss.pt does not end in .onnx'),
    ],
)
def test_requests_that_cannot_be_served(tmp_path, options, message):
    path = tmp_path / options.pop('path', '')
    with pytest.raises(ConfigError, match=re.escape(message)):
        exporters.export('GIoULoss', path, **options)
    assert not list(tmp_path.iterdir())
