"""Files with fixed sizes, for runtimes that get dynamic sizes wrong."""

import contextlib
import json
import math
import re

import numpy as np
import onnx
import pytest
import torch

from lossreg import exporters
from lossreg.__main__ import main
from lossreg.artefact import METADATA_KEY
from lossreg.errors import ConfigError, DeclinedError
from lossreg.exporters import build
from lossreg.runtimes import Eager, OnnxRuntime, Pt2
from lossreg.samples import draw
from lossreg.unit import with_fixed

ALL_OF = {'GIoULoss': {'N': 6}, 'SmoothL1Loss': {'N': 6, 'D': 4}, 'HuberLoss': {'N': 6, 'C': 4}}


def dims_of(value):
    return [d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim]


def assert_as_eager(run, unit, sizes, seed=0):
    """Compares values and gradients with eager in float64."""
    inputs = draw(unit, sizes={**unit.sizes(), **sizes}, seed=seed)
    expected = Eager(unit, dtype=torch.float64)(inputs)
    found = run(inputs)
    assert found.keys() == expected.keys()
    for name, want in expected.items():
        np.testing.assert_allclose(found[name], want, rtol=1e-4, atol=1e-5, err_msg=name)


def manifest_of(path):
    return json.loads((path.parent / 'manifest.json').read_text())['artefacts'][path.name]


@pytest.mark.parametrize('format', ['onnx', 'pt2'])
def test_the_numbers_at_that_size_and_a_refusal_at_another(tmp_path, unit_of, format):
    path = exporters.export('GIoULoss', tmp_path, format=format, grad=True, fixed={'N': 6})
    assert path.name == f'GIoULoss.default.boxes.N6.grad.{format}'
    run = {'onnx': OnnxRuntime, 'pt2': Pt2}[format](path.read_bytes())
    unit = unit_of('GIoULoss', grad=True)
    for seed in range(3):
        assert_as_eager(run, unit, {'N': 6}, seed)
    for size in (0, 1, 5, 12):
        with pytest.raises(Exception, match=r'(?i)invalid dimensions|guard'):
            run(draw(unit, sizes={'N': size}))
    entry = manifest_of(path)
    assert entry['fixed'] == {'N': 6}
    assert [i['shape'] for i in entry['inputs']] == [['6', '4'], ['6', '4']]


@pytest.mark.parametrize(('name', 'sizes'), ALL_OF.items(), ids=ALL_OF)
def test_sizes_that_are_all_fixed_are_constants(unit_of, name, sizes):
    """No node computes a shape, so none can be wrong."""
    unit = with_fixed(unit_of(name, grad=True), sizes)
    data = build(unit, ['onnx'])['onnx']
    model = onnx.load_from_string(data)
    assert not {'Shape', 'Size', 'ConstantOfShape', 'Range'} & {node.op_type for node in model.graph.node}
    assert all(isinstance(dim, int) and dim > 0 for i in model.graph.input for dim in dims_of(i))
    assert json.loads({p.key: p.value for p in model.metadata_props}[METADATA_KEY])['fixed'] == sizes
    assert_as_eager(OnnxRuntime(data), unit, sizes, seed=1)
    assert build(unit, ['onnx'])['onnx'] == data


def test_other_dimensions_stay_dynamic(unit_of):
    unit = with_fixed(unit_of('KLDiscretLoss', grad=True), {'K': 17, 'W': 20})
    data = build(unit, ['onnx'])['onnx']
    inputs = {i.name: dims_of(i) for i in onnx.load_from_string(data).graph.input}
    assert inputs['output_x'] == ['N', 17, 20]
    assert inputs['output_y'] == ['N', 17, 'H']
    run = OnnxRuntime(data)
    for n, h in ((0, 3), (1, 1), (9, 30)):
        assert_as_eager(run, unit, {'N': n, 'H': h})
    inputs = draw(unit, sizes={**unit.sizes(), 'N': 3})
    loss = math.nan
    with contextlib.suppress(Exception):  # ONNX Runtime may fail by itself
        loss = run({**inputs, 'target_weight': inputs['target_weight'][:1]})['loss']
    assert np.isnan(loss), 'N is still compared in the graph'


def test_files_do_not_collide_and_manifests_are_checked(tmp_path, monkeypatch, capsys):
    """Each file is compared with eager at its own size; another size in the manifest fails."""
    monkeypatch.chdir(tmp_path)
    sizes = ['--fixed', 'C=3', '--fixed', 'N=4']
    assert main(['export', 'CrossEntropyLoss', '--grad', '--call', 'labels', *sizes, '--with', 'weight']) == 0
    assert main(['export', 'CrossEntropyLoss', '--grad', '--call', 'labels', '--fixed', 'N=5', '--format', 'pt2']) == 0
    names = {p.name for p in tmp_path.glob('CrossEntropyLoss*')}
    assert names == {
        'CrossEntropyLoss.default.labels.weight.N4.C3.grad.onnx',
        'CrossEntropyLoss.default.labels.N5.grad.pt2',
    }
    capsys.readouterr()
    assert main(['check', 'manifest.json', '--json']) == 0
    rows = json.loads(capsys.readouterr().out)['rows']
    assert {row['status'] for row in rows} == {'pass'}
    assert {'ordinary', 'extreme 1', 'all weight 0'} <= {row['check'] for row in rows}
    assert not {'empty', 'single'} & {row['check'] for row in rows}

    path = tmp_path / 'manifest.json'
    right = path.read_text()
    for wrong in ('{"N": 6}', '{}', '{"M": 4}', '["N"]', '"N=4"', '{"N": "4"}'):
        path.write_text(re.sub(r'"fixed": \{[^}]*\}', f'"fixed": {wrong}', right))
        assert main(['check', 'manifest.json', '--json']) == 1, wrong
    capsys.readouterr()


@pytest.mark.parametrize(
    ('fixed', 'message'),
    [
        ({'M': 4}, "has no dimension 'M'; it has N, C"),
        ({'4': 4}, "has no dimension '4'; it has N, C"),
        ({'N': 0}, 'N of CrossEntropyLoss cannot be fixed to 0; give a whole number from 1 up'),
        ({'N': -1}, 'cannot be fixed to -1'),
        ({'N': 2.0}, 'cannot be fixed to 2.0'),
        ({'N': True}, 'cannot be fixed to True'),
        ({'N': '8'}, "cannot be fixed to '8'"),
        ({'C': 5}, 'C of CrossEntropyLoss is 4 with this config; it cannot be fixed to 5'),
        ('N=8', "fixed sizes are given by dimension, such as {'N': 32}, not as 'N=8'"),
    ],
)
def test_sizes_that_cannot_be_fixed(tmp_path, fixed, message):
    loss = {'type': 'CrossEntropyLoss', 'class_weight': [1.0, 2.0, 3.0, 4.0]}
    with pytest.raises(ConfigError, match=re.escape(message)):
        exporters.export(loss, tmp_path, call='labels', fixed=fixed)
    assert not list(tmp_path.iterdir())


def test_least_sizes_count(tmp_path):
    with pytest.raises(ConfigError, match='K of KeypointOHKMMSELoss is at least 8 here; it cannot be fixed to 7'):
        exporters.export('KeypointOHKMMSELoss', tmp_path, fixed={'K': 7})


def test_torchscript_declines_before_anything_is_written(tmp_path, capsys):
    with pytest.raises(DeclinedError, match='TorchScript takes every size'):
        exporters.export('GIoULoss', tmp_path, format='torchscript', fixed={'N': 4})
    assert main(['export', 'GIoULoss', '--format', 'all', '--fixed', 'N=4', '--out', str(tmp_path)]) == 4
    assert capsys.readouterr().err.count('\n') == 1
    assert not list(tmp_path.iterdir())
