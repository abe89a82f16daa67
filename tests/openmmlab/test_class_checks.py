"""The heads that check the class of their loss, in the packages themselves."""

import importlib

import packages
import pytest
from torch import nn

from lossreg.class_checks import CHECKS
from lossreg.hosts import stand_ins

pytestmark = pytest.mark.openmmlab

pytest.importorskip('mmdet', reason='needs the real OpenMMLab packages: tests/openmmlab/install.sh VENV')

PACKAGES = {'Anchor3DHead': 'mmdet3d', 'OFDDistiller': 'mmrazor'}
"""The package of a family of heads, if not mmdet."""


@pytest.mark.parametrize('check', CHECKS, ids=lambda check: check.heads[0])
def test_all_subclasses_are_named(check):
    package = PACKAGES.get(check.heads[0], 'mmdet')
    packages.losses_of(package)
    importlib.import_module(f'{package}.models')
    registered = importlib.import_module(f'{package}.registry').MODELS.module_dict
    base = registered[check.heads[0]]
    classes = {name: cls for name, cls in registered.items() if isinstance(cls, type) and issubclass(cls, nn.Module)}
    assert {name for name, cls in classes.items() if issubclass(cls, base)} == set(check.heads)
    assert set(check.losses) <= stand_ins().keys()
