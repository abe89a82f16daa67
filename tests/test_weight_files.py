"""Options that name a file of numbers: checks and exports use the numbers."""

import json
import pickle

import numpy as np
import pytest
import yaml

from lossreg.checks import Status, check_unit
from lossreg.errors import ConfigError
from lossreg.registry import load_losses
from lossreg.request import Request
from lossreg.spec import spec_of


def options_with_numbers():
    """Each weight option of each loss, with a variant that gives it as a list."""
    found = {}
    for name, cls in load_losses().items():
        for options in spec_of(cls).variants.values():
            for option, value in options.items():
                if isinstance(value, list) and (option.endswith('weight') or option == 'alpha'):
                    found.setdefault((name, option), options)
    return found


OPTIONS = options_with_numbers()
WRITE = {
    'npy': lambda path, numbers: np.save(path, np.array(numbers)),
    'json': lambda path, numbers: path.write_text(json.dumps(numbers)),
    'yaml': lambda path, numbers: path.write_text(yaml.dump(numbers)),
    'pkl': lambda path, numbers: path.write_bytes(pickle.dumps(numbers)),
}


def test_there_are_such_options():
    assert len(OPTIONS) >= 20
    assert {'class_weight', 'pos_weight', 'weight', 'alpha'} <= {option for _, option in OPTIONS}


@pytest.mark.parametrize(('name', 'option'), OPTIONS)
def test_the_oracle_gets_the_numbers(tmp_path, name, option):
    options = OPTIONS[name, option]
    file = tmp_path / 'weights.npy'
    WRITE['npy'](file, options[option])
    request = Request.of({'type': name, **options, option: str(file)})
    rows = list(check_unit(next(request.units()), ('eager',)))
    assert len(rows) > 10
    assert not [row for row in rows if row.status is not Status.PASS]


@pytest.mark.parametrize('suffix', WRITE)
def test_every_kind_of_file_gives_the_numbers(tmp_path, suffix):
    """Also in a nested loss. The artefact's config is then self-contained, and the variant is the same."""
    numbers = [0.5, 2.0, 0.0, 1.25]
    file = tmp_path / f'weights.{suffix}'
    WRITE[suffix](file, numbers)
    for config in (
        {'type': 'CrossEntropyLoss', 'class_weight': None},
        {
            'type': 'CompositeLoss',
            'losses': {
                'ce': {
                    'loss': {'type': 'CrossEntropyLoss', 'class_weight': None},
                    'inputs': {'cls_score': 'x', 'label': 'y'},
                }
            },
        },
    ):
        named, plain = (json.loads(json.dumps(config).replace('null', json.dumps(v))) for v in (str(file), numbers))
        found, expected = Request.of(named), Request.of(plain)
        assert found.config == expected.config
        assert found.variant == expected.variant


def test_a_file_that_is_none_is_one_line(tmp_path):
    (tmp_path / 'weights.json').write_text('{"a": [1')
    for path in (tmp_path / 'weights.json', tmp_path / 'missing.npy'):
        with pytest.raises(ConfigError, match='class_weight') as raised:
            Request.of({'type': 'CrossEntropyLoss', 'class_weight': str(path)})
        assert '\n' not in str(raised.value)


@pytest.mark.parametrize('suffix', ['py', 'json', 'yaml'])
@pytest.mark.parametrize('name', ['OKSLoss', 'OksLoss'])
def test_the_oracle_reads_metainfo_files(tmp_path, name, suffix):
    info = {'dataset_info': {'sigmas': [0.5, 1.0, 0.25, 2.0, 0.75]}}
    file = tmp_path / f'metainfo.{suffix}'
    text = f'dataset_info = {info["dataset_info"]}' if suffix == 'py' else json.dumps(info)
    file.write_text(text)
    for metainfo in (str(file), {'from_file': str(file)}):
        unit = next(Request.of({'type': name, 'metainfo': metainfo}).units())
        failed = [row for row in check_unit(unit, ('eager',)) if row.status is not Status.PASS]
        assert not failed
