"""The registry: what mmengine and build_loss build, and what plain names mean."""

import copy
import io
import os
import pickle

import numpy as np
import pytest
import torch
from failures import Failures
from interpreter import run_python
from units import REQUESTS

import lossreg
import lossreg.functional as functional
from lossreg.errors import ConfigError
from lossreg.registry import LOSSES, build_loss, load_losses

# mmengine


def test_mmengine_builds_by_scope_without_an_import(run_with_mmengine):
    run_with_mmengine("""
from mmengine.registry import MODELS, DefaultScope
loss = MODELS.build(dict(type='lossreg.KLDiscretLoss', beta=2.0))
assert type(loss).__module__ == 'lossreg.losses.pose.kl_discret_loss' and loss.beta == 2.0
assert MODELS.build(dict(type='GIoULoss', _scope_='lossreg')).spec
assert 'KLDiscretLoss' not in MODELS.module_dict, 'plain names are opt-in'
""")


def test_plain_names_after_unscoped(run_with_mmengine):
    run_with_mmengine("""
from mmengine.config import Config
from mmengine.registry import MODELS, Registry
from mmengine.utils import import_modules_from_strings

@MODELS.register_module()
class DiceLoss: 'somebody was here first'

host = Registry('model', parent=MODELS, scope='host')

@host.register_module()
class GIoULoss: 'the host has its own'

import_modules_from_strings(['lossreg.unscoped'])
from lossreg.registry import LOSSES
assert MODELS.get('KLDiscretLoss') is LOSSES.get('KLDiscretLoss')
assert host.get('KLDiscretLoss') is LOSSES.get('KLDiscretLoss')
assert host.get('GIoULoss') is GIoULoss
assert MODELS.get('GIoULoss') is LOSSES.get('GIoULoss')
assert MODELS.get('DiceLoss') is DiceLoss
from lossreg.unscoped import register_unscoped
assert register_unscoped() == [], 'a second time changes nothing'
""")


def test_build_loss_ignores_the_default_scope(run_with_mmengine):
    run_with_mmengine("""
from mmengine.registry import MODELS, DefaultScope, Registry
host = Registry('model', parent=MODELS, scope='host')

@host.register_module()
class GIoULoss:
    pass

DefaultScope.get_instance('a run', scope_name='host')
from lossreg.registry import LOSSES, build_loss
assert isinstance(MODELS.build(dict(type='GIoULoss')), GIoULoss), 'mmengine follows the scope'
assert type(build_loss('GIoULoss')) is LOSSES.module_dict['GIoULoss']
assert type(build_loss(dict(type='lossreg.GIoULoss', _scope_='host'))) is LOSSES.module_dict['GIoULoss']
""")


# build_loss


def test_build_loss_takes_names_scopes_and_classes():
    cls = LOSSES.module_dict['GIoULoss']
    for type_ in ('GIoULoss', 'lossreg.GIoULoss', cls):
        loss = build_loss({'type': type_, 'loss_weight': 2})
        assert type(loss) is cls
        assert loss.loss_weight == 2.0
    assert type(build_loss('GIoULoss')) is cls


def test_build_loss_does_not_change_its_config():
    config = {'type': 'GIoULoss', '_scope_': 'mmdet', 'eps': 1e-7}
    build_loss(config)
    assert config == {'type': 'GIoULoss', '_scope_': 'mmdet', 'eps': 1e-7}


@pytest.mark.parametrize('name', ['os.path.join', 'builtins.eval', 'torch.nn.Linear', 'lossreg.os.system', ''])
def test_only_registered_names_are_built(name):
    with pytest.raises(ConfigError, match='no loss is registered as'):
        build_loss(name)


def test_mmengine_itself_would_return_the_function():
    assert LOSSES.get('os.path.join') is os.path.join


@pytest.mark.parametrize(
    ('config', 'message'),
    [
        ({'type': 'GIouLoss'}, "no loss is registered as 'GIouLoss'; did you mean 'GIoULoss'?"),
        ({'type': 'Zebra'}, "no loss is registered as 'Zebra'; see `lossreg list`"),
        ({'type': 'FocalLoss', 'gama': 2.0}, "FocalLoss has no argument 'gama'; did you mean 'gamma'?"),
        ({'type': 'TripletLoss', 'zebra': 2.0}, "TripletLoss has no argument 'zebra'; it takes margin"),
        ({'loss_weight': 2.0}, "a loss config needs a 'type'"),
        ({'type': 'FocalLoss', 'gamma': -1.0}, 'gamma must be >= 0, got -1.0'),
        ({'type': 'GIoULoss', 'reduction': 'avg'}, "reduction must be 'none', 'mean' or 'sum', got 'avg'"),
        ({'type': 'TripletLoss', 'margin': 'wide'}, 'TripletLoss cannot be built from'),
    ],
)
def test_errors_name_the_fix(config, message):
    with pytest.raises(ConfigError) as caught:
        build_loss(config)
    assert message in str(caught.value)


# The package


def test_import_is_cheap():
    run_python("""
import sys, lossreg
assert not {'torch', 'numpy', 'mmengine', 'onnx', 'onnxruntime', 'rich'} & sys.modules.keys()
assert lossreg.ConfigError.exit_code == 2
assert 'torch' not in sys.modules, 'errors need no torch'
assert callable(lossreg.functional.giou_loss), 'an attribute without an import of its own'
assert lossreg.GIoULoss is lossreg.LOSSES.get('GIoULoss')
assert {'GIoULoss', 'build_loss', 'export'} <= set(dir(lossreg))
""")


def test_unknown_attributes_are_attribute_errors():
    for module in (lossreg, functional):
        with pytest.raises(AttributeError, match='no_such_loss'):
            _ = module.no_such_loss
        with pytest.raises(AttributeError):
            _ = module.__wrapped__


# Instances


def saved_and_loaded(loss):
    buffer = io.BytesIO()
    torch.save(loss, buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=False)


COPIES = {'pickled': lambda loss: pickle.loads(pickle.dumps(loss)), 'copied': copy.deepcopy, 'saved': saved_and_loaded}
each_loss = pytest.mark.parametrize('name', REQUESTS)


@each_loss
def test_copies_keep_every_option(name):
    with Failures() as failures:
        for request in REQUESTS[name]:
            for how, copied in COPIES.items():
                with failures.of(f'{request.variant}, {how}'):
                    assert_same_options(copied(request.loss), request.loss)


def assert_same_options(twin, loss):
    assert type(twin) is type(loss)
    assert twin.extra_repr() == loss.extra_repr()
    plain, theirs = ({k: v for k, v in vars(x).items() if not k.startswith('_')} for x in (loss, twin))
    assert plain == theirs
    assert plain
    for (name, buffer), (_, other) in zip(loss.named_buffers(), twin.named_buffers(), strict=True):
        assert torch.equal(buffer, other), name


def test_instances_keep_their_options_by_name():
    with Failures() as failures:
        for name, requests in REQUESTS.items():
            for request in requests:
                for option, value in request.loss.spec.variants[request.variant].items():
                    with failures.of(f'{name}, {request.variant}, {option}'):
                        kept = getattr(request.loss, option)
                        if option in dict(request.loss.named_buffers()):
                            np.testing.assert_allclose(kept, value)
                        else:
                            assert as_list(kept) == as_list(value)


def as_list(value):
    return list(value) if isinstance(value, tuple) else value


def test_checkpoints_hold_parameters_and_state_alone():
    """Hosts' losses mostly have neither, so their checkpoints keep their keys; ours also hold what the hosts' hold."""
    with Failures() as failures:
        for name, requests in REQUESTS.items():
            for built in requests:
                with failures.of(f'{name}, {built.variant}'):
                    state = {i.name for unit in built.units() for i in unit.inputs if i.state}
                    constants = {key for key, _ in built.loss.named_buffers() if key in built.loss.spec.constants}
                    parameters = dict(built.loss.named_parameters())
                    assert set(built.loss.state_dict()) == {*parameters, *state, *constants}


# A loss from another package

OUTSIDE_LOSS = '''
"""A loss that lossreg has never heard of."""
import numpy as np
import torch
from torch import Tensor, nn

from lossreg.arith import check_same_shape, upcast
from lossreg.ops.reductions import reduce_loss
from lossreg.registry import LOSSES
from lossreg.spec import Call, Input, LossSpec, Role


def squared_error(pred: Tensor, target: Tensor) -> Tensor:
    """(pred - target)^2."""
    check_same_shape(target, pred, 'target', 'pred')
    difference = upcast(pred) - upcast(target)
    return difference * difference


@LOSSES.register_module()
class OutsideLoss(nn.Module):
    """Mean of squared errors."""

    def __init__(self, loss_weight: float = 1.0) -> None:
        super().__init__()
        self.loss_weight = loss_weight

    def forward(self, pred: Tensor, target: Tensor) -> Tensor:
        """The mean."""
        return self.loss_weight * reduce_loss(squared_error(pred, target), 'mean', None)


def oracle(call, inputs, options):
    """The same in NumPy."""
    if inputs['pred'].size == 0:
        return np.zeros(())
    return options['loss_weight'] * ((inputs['pred'] - inputs['target']) ** 2).mean()


INPUTS = (Input('pred', Role.FEATURES, 'N D', differentiable=True), Input('target', Role.FEATURES, 'N D'))
OutsideLoss.spec = LossSpec(
    functions=(squared_error,),
    calls=(Call('dense', INPUTS),),
    variants={'default': {}, 'heavy': {'loss_weight': 2.0}},
    references=(),
    oracle='outside.losses:oracle',
)
'''


def test_loss_from_another_package(run_with_mmengine, tmp_path):
    (tmp_path / 'outside').mkdir()
    (tmp_path / 'outside' / '__init__.py').touch()
    (tmp_path / 'outside' / 'losses.py').write_text(OUTSIDE_LOSS)
    run_with_mmengine(
        """
from lossreg.checks import check_unit
from lossreg.registry import build_loss, load_losses
from lossreg.request import variants_of
assert 'OutsideLoss' not in load_losses()
assert 'OutsideLoss' in load_losses('outside.losses')
import lossreg
assert lossreg.OutsideLoss is type(build_loss('OutsideLoss'))
rows = [row for r in variants_of('OutsideLoss') for u in r.units() for row in check_unit(u, ('eager', 'torchscript'))]
assert {(row.backend, row.variant) for row in rows} == {
    (backend, variant) for backend in ('eager', 'torchscript') for variant in ('default', 'heavy')
}
assert not [row for row in rows if row.status != 'pass'], rows
""",
        folders=[tmp_path],
    )


def test_package_that_cannot_be_imported(tmp_path, monkeypatch):
    (tmp_path / 'broken_losses.py').write_text('1 / 0')
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ConfigError, match=r"cannot import 'broken_losses'.*division by zero"):
        load_losses('broken_losses')
