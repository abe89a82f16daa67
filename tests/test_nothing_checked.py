"""A check fails if it checked nothing: misspelt losses, configs that exit, empty manifests, missing oracles."""

import json
from dataclasses import replace

import pytest
from failures import Failures

from lossreg.__main__ import main
from lossreg.checks import check_unit, oracle
from lossreg.checks.rows import RowMaker, Status
from lossreg.config import LossInConfig, _unknown, requests_for
from lossreg.errors import ConfigError
from lossreg.misnamed import KnownNames
from lossreg.registry import load_losses
from lossreg.request import variants_of

NAMES = KnownNames()
GOOD = "bbox=dict(type='RetinaHead', loss_bbox=dict(type='GIoULoss', loss_weight=2.0))"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def check(capsys, *arguments):
    """Exit code, rows and stderr of a check on eager alone."""
    code = main(['check', *arguments, '--backend', 'eager', '--json'])
    out, err = capsys.readouterr()
    return code, json.loads(out)['rows'] if out else [], err


def details(rows, status='fail'):
    return [row['detail'] for row in rows if row['status'] == status]


# Types that are not losses

FAULTY = {
    'ours, misspelt': ('', "x=dict(type='lossreg.FocalLos')", ['lossreg.FocalLos', "'FocalLoss'"]),
    'ours, looks like a loss': ('mmdet', "x=dict(type='lossreg.FooBarLoss')", ['lossreg.FooBarLoss', 'lossreg list']),
    'ours, like nothing': ('mmpose', "x=[dict(type='lossreg.Qxqx')]", ['lossreg.Qxqx']),
    'ours by scope': ('mmdet', "x=dict(type='FocalLoose', _scope_='lossreg')", ['lossreg.FocalLoose', "'FocalLoss'"]),
    'misspelt': ('mmdet', "x=dict(type='FocalLos')", ['mmdet.FocalLos', "'FocalLoss'"]),
    'misspelt, still a loss by name': ('mmdet', "x=dict(type='FcoalLoss')", ["'FocalLoss'"]),
    'letters exchanged': ('mmseg', "x=dict(type='TvreskyLoss')", ["'TverskyLoss'"]),
    'capitals': ('mmdet', "loss=dict(type='giouloss')", ["'GIoULoss'"]),
    "another host's scope": ('mmpose', "x=dict(type='FocalLos', _scope_='mmdet')", ['mmdet.FocalLos']),
    'with the package': ('', "x=dict(type='mmdet.FocalLos')", ['mmdet.FocalLos', "'FocalLoss'"]),
    'only ours has it': ('mmpose', "x=dict(type='KLDiscreteLoss')", ["'KLDiscretLoss'"]),
    'without a scope': ('', "loss=dict(type='FocalLos')", ['FocalLos', "'FocalLoss'"]),
    'under loss': ('mmdet', "loss=dict(type='CrossEntropyCriterion')", ['mmdet.CrossEntropyCriterion']),
    'under loss_cls': ('mmdet', "loss_cls=dict(type='Foo')", ['mmdet.Foo']),
    'under losses': ('mmpose', "losses=[dict(type='KLDiscretLoss'), dict(type='Foo')]", ['losses[1]', 'mmpose.Foo']),
    'under distill_losses': ('mmrazor', "distill_losses=dict(kl=dict(type='Foo'))", ['distill_losses.kl', 'Foo']),
    'under gan_loss': ('mmagic', "gan_loss=dict(type='Foo')", ['mmagic.Foo']),
}


def config(scope, item, good=GOOD):
    return f'default_scope = {scope!r}\nmodel = dict({good}, neck=dict({item}))\n'


@pytest.mark.parametrize('good', [GOOD, "nothing='here'"], ids=['beside a loss', 'alone'])
@pytest.mark.parametrize(('scope', 'item', 'words'), FAULTY.values(), ids=FAULTY)
def test_a_type_that_is_no_loss(folder, scope, item, words, good):
    (folder / 'c.py').write_text(config(scope, item, good))
    _, left = requests_for('c.py')
    wrong = [item.reason for item in left if item.is_error]
    assert len(wrong) == 1
    assert 'c.py:model.neck.' in wrong[0]
    assert '\n' not in wrong[0]
    assert [word for word in words if word not in wrong[0]] == []


@pytest.mark.parametrize(
    'item', ["x=dict(type='lossreg.FocalLos')", "x=dict(type='FocalLos')", "loss=dict(type='Foo')"]
)
def test_check_and_export_refuse_it(folder, capsys, item):
    (folder / 'c.py').write_text(config('mmdet', item))
    code, rows, _ = check(capsys, 'c.py')
    assert code == 1
    (detail,) = details(rows)
    assert main(['export', 'c.py', '--out', 'out']) == 2
    out, err = capsys.readouterr()
    assert (out, err) == ('', f'lossreg: {detail}\n')
    assert not (folder / 'out').exists()


ELSEWHERE = {
    "a user's own": ('mmdet', "loss=dict(type='MyLoss')", 'mmdet.MyLoss'),
    "another package's": ('mmdet', "loss_cls=dict(type='mmfoo.XLoss')", 'mmfoo.XLoss'),
    "another package's, without Loss in its name": ('mmdet', "loss_cls=dict(type='mmfoo.Focal')", 'mmfoo.Focal'),
    "another package's, in its scope": ('mmfoo', "loss=dict(type='FocalLos')", 'mmfoo.FocalLos'),
    'a variant of a known one': ('mmdet', "loss=dict(type='MyFocalLoss')", 'mmdet.MyFocalLoss'),
    'a later version': ('mmdet', "loss=dict(type='FocalLossV2')", 'mmdet.FocalLossV2'),
    'another acronym': ('mmdet', "loss=dict(type='WIoULoss')", 'mmdet.WIoULoss'),
}


@pytest.mark.parametrize(('scope', 'item', 'name'), ELSEWHERE.values(), ids=ELSEWHERE)
def test_what_may_be_somebody_elses_is_skipped(folder, scope, item, name):
    (folder / 'c.py').write_text(config(scope, item, GOOD.replace("'GIoU", "'mmdet.GIoU")))
    requests, left = requests_for('c.py')
    assert [r.config['type'] for r in requests] == ['lossreg.GIoULoss']
    assert [(item.is_error, item.reason) for item in left] == [
        (False, f'c.py:model.neck.{item.partition("=")[0]}: nothing stands in for {name}')
    ]


HARMLESS = [
    "optimizer=dict(type='Adam')",
    "accuracy=dict(type='Accuracy')",
    'loss_weight=dict(a=1.0)',
    "loss_scale='dynamic'",
    "head=dict(type='FocalHead')",
    "assigner=dict(type='FocalLossCost')",
    "loss_forward_mappings=dict(loss_kl=dict(preds_S=dict(from_student=True, recorder='fc')))",
    "connectors=dict(loss_s0=dict(type='FBKDStudentConnector', mode='dot_product'))",
    "student_recorders=dict(loss_s0=dict(type='ModuleOutputs', source='neck'))",
    "losses=dict(ce=dict(type='mmdet.CrossEntropyLoss'))",
    "loss=dict(type='GHMC', bins=30)",
]


@pytest.mark.parametrize('item', HARMLESS)
@pytest.mark.parametrize('scope', ['mmdet', 'mmpretrain', 'lossreg', ''])
def test_what_is_no_fault(folder, scope, item):
    item = item.replace("'GHMC'", "'mmdet.GHMC'")
    (folder / 'c.py').write_text(config(scope, item, GOOD.replace("'GIoU", "'mmdet.GIoU")))
    assert requests_for('c.py')[1] == []


def test_no_known_name_is_taken_for_another():
    """In every scope that has the class, and in ours."""
    with Failures() as failures:
        for name, cls in load_losses().items():
            for scope in {host.name.partition('.')[0] for host in cls.spec.stands_in_for} | {'lossreg'}:
                for node in ({'loss': {'type': name}}, {'x': {'type': f'lossreg.{name}'}}):
                    with failures.of(f'{scope}: {node}'):
                        assert list(_unknown(node, '', scope, NAMES)) == []


# Targets in which nothing is checked


def test_every_loss_skipped(folder, capsys):
    """It fails whatever else is checked."""
    (folder / 'mine.py').write_text("default_scope = 'mmdet'\nloss = dict(type='MyLoss')\n")
    code, rows, _ = check(capsys, 'mine.py', 'TorchL1Loss')
    assert code == 1
    (detail,) = details(rows)
    assert detail.startswith(
        'mine.py: nothing was checked, because all was skipped: mine.py:loss: nothing stands in for'
    )
    code, rows, _ = check(capsys, 'mine.py', '--strict')
    assert code == 1
    assert main(['export', 'mine.py', 'TorchL1Loss', '--out', 'out']) == 2
    assert 'mine.py' in capsys.readouterr().err
    assert not (folder / 'out').exists()


def test_a_manifest_without_artefacts(folder, capsys):
    (folder / 'manifest.json').write_text('{"schema": 1, "artefacts": {}}')
    code, rows, _ = check(capsys, 'manifest.json', 'TorchL1Loss')
    assert code == 1
    assert any('manifest.json' in detail for detail in details(rows))


def test_backends_that_are_all_missing(monkeypatch, capsys):
    def missing(unit, *how, **options):
        yield RowMaker(unit, 'ort-cuda').row('load', Status.MISSING, 'no CUDA here')

    monkeypatch.setattr('lossreg.commands.tasks.check_unit', missing)
    code = main(['check', 'TorchL1Loss', '--backend', 'ort-cuda', '--json'])
    rows = json.loads(capsys.readouterr().out)['rows']
    assert code == 1
    assert details(rows) == ['TorchL1Loss: nothing was checked, because no backend is available: no CUDA here']


ENDS = ['import sys\nsys.exit(0)', 'raise SystemExit', 'class Stop(BaseException): ...\nraise Stop', '1 / 0', 'x = (']


@pytest.mark.parametrize('text', ENDS)
def test_a_config_that_ends_itself(folder, capsys, text):
    (folder / 'a_bad.py').write_text(text)
    (folder / 'good.py').write_text("loss = dict(type='lossreg.GIoULoss')")
    for command in ('check', 'export', 'migrate'):
        assert main([command, 'a_bad.py']) == 2
        out, err = capsys.readouterr()
        assert out == ''
        assert err.startswith('lossreg: a_bad.py cannot be read as a config: ')
        assert err.count('\n') == 1
    code, rows, _ = check(capsys, str(folder))
    assert code == 1
    assert len(details(rows)) == 1
    assert 'a_bad.py cannot be read as a config' in details(rows)[0]
    assert {row['loss'] for row in rows if row['status'] == 'pass'} == {'GIoULoss'}
    assert main(['export', str(folder), '--out', 'out']) == 2
    assert not (folder / 'out').exists()


def test_ctrl_c_in_a_config_is_ctrl_c(folder, capsys):
    (folder / 'c.py').write_text('raise KeyboardInterrupt')
    assert main(['check', 'c.py']) == 130
    assert capsys.readouterr().err == 'lossreg: interrupted\n'


# Oracles


@pytest.fixture
def without_oracle(tmp_path, monkeypatch):
    """A unit of a correct loss in another package, whose oracle the test writes."""

    def make(module, text=None):
        for folder in ('shop', 'shop/losses', 'shop/oracles'):
            (tmp_path / folder).mkdir(exist_ok=True)
            (tmp_path / folder / '__init__.py').touch()
        if text is not None:
            (tmp_path / 'shop' / 'oracles' / 'own_loss.py').write_text(text)
        monkeypatch.syspath_prepend(tmp_path)
        unit = next(variants_of('TorchL1Loss')[0].units())
        cls = type('OwnLoss', (type(unit.loss),), {'__module__': module, 'spec': replace(unit.spec, oracle='')})
        return replace(unit, loss=cls(), spec=cls.spec)

    yield make
    import sys

    for name in [name for name in sys.modules if name.partition('.')[0] == 'shop']:
        del sys.modules[name]


ORACLES = {
    'no file': ('shop.losses.own_loss', None, ['OwnLoss', 'shop/oracles/own_loss.py', '--no-oracle OwnLoss']),
    'misnamed': ('shop.losses.own_loss', 'def own(): ...', ['OwnLoss', 'shop/oracles/own_loss.py', 'own_loss']),
    'no package': ('toplevel', None, ['OwnLoss', "oracle='module:function'", '--no-oracle OwnLoss']),
    'other package': ('shop.nn.own_loss', None, ['OwnLoss', "oracle='module:function'"]),
}


@pytest.mark.parametrize(('module', 'text', 'words'), ORACLES.values(), ids=ORACLES)
def test_a_missing_oracle_fails_unless_waived(without_oracle, module, text, words):
    unit = without_oracle(module, text)
    failed = [row for row in check_unit(unit, ('eager',)) if row.status is Status.FAIL]
    assert [row.check for row in failed] == ['oracle']
    assert [word for word in words if word not in failed[0].detail] == []
    for waived, status in ((('OwnLoss',), Status.SKIP), (('OtherLoss',), Status.FAIL)):
        rows = list(check_unit(unit, ('eager',), waived=waived))
        assert [row.status for row in rows if row.check == 'oracle'] == [status]
        assert len(rows) > 10


@pytest.mark.parametrize('text', ['import no_such_package', 'from math import no_such_name', '1 / 0'])
def test_an_oracle_that_cannot_be_imported_is_not_missing(without_oracle, text):
    """No waiver applies to it."""
    unit = without_oracle('shop.losses.own_loss', text)
    rows = list(check_unit(unit, ('eager',), waived=('OwnLoss',)))
    (failed,) = [row for row in rows if row.status is Status.FAIL]
    assert 'shop/oracles/own_loss.py, cannot be imported' in failed.detail


def test_every_loss_has_its_oracle():
    for cls in load_losses().values():
        assert callable(oracle.oracle_of(cls))


def test_waivers_are_names_of_losses(capsys):
    assert main(['check', 'GIoULoss', '--no-oracle', 'GIoULos']) == 2
    assert "did you mean 'GIoULoss'" in capsys.readouterr().err


def test_a_found_loss_with_a_fault_is_no_request():
    with pytest.raises(ConfigError, match='no such'):
        LossInConfig('c.py:loss', 'FocalLos', {}, fault='no such').request()


def test_places_are_printed_as_they_are(folder, capsys):
    """rich would print ``:a:`` as an emoji."""
    (folder / 'y.py').write_text("a=dict(type='lossreg.FocalLos')")
    assert main(['check', 'y.py', '--backend', 'eager']) == 1
    assert 'y.py:a: no loss is known' in capsys.readouterr().out
