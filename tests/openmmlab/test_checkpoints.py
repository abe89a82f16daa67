"""Checkpoints of the real packages' losses load into ours, strictly, and ours into theirs."""

import copy
import inspect

import pytest
from packages import host_class, host_loss
from pairs import stand_ins
from quirks import BY_HAND, FAILS, theirs

from lossreg.request import Request

pytestmark = pytest.mark.openmmlab

pytest.importorskip('mmdet', reason='needs the real OpenMMLab packages: tests/openmmlab/install.sh VENV')


@pytest.mark.parametrize(('cls', 'host'), [pytest.param(c, h, id=h.name) for c, h in stand_ins()])
def test_same_keys(cls, host):
    known = inspect.signature(host_class(host.name)).parameters
    tried = 0
    for variant, options in cls.spec.variants.items():
        if not options.keys() <= known.keys() or (host.name, variant) in FAILS | BY_HAND:
            continue
        ours = copy.deepcopy(Request.of({'type': cls, **host.defaults, **options}).loss)
        try:
            other = host_loss(host.name, theirs(options))
        except (AssertionError, TypeError):  # the host lacks this option or value
            continue
        tried += 1
        ours.load_state_dict(other.state_dict())
        # state that only ours keeps
        state = {i.name for c in Request.of(ours).calls() for i in c.inputs if i.state} - other.state_dict().keys()
        other.load_state_dict({key: value for key, value in ours.state_dict().items() if key not in state})
    by_hand = {entry if isinstance(entry, str) else entry[0] for entry in BY_HAND}
    assert tried or host.name in by_hand, 'no variant was compared'
