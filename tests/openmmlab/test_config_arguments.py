"""Our loss against the host's, with every set of arguments in the shipped configs."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import packages
import pytest
from mmengine.registry import DefaultScope
from packages import host_loss
from pairs import Pair, assert_agree, comparable, ordinary_inputs, paired
from quirks import BY_HAND, FAILS, adapted
from torch import Tensor

from lossreg.config import LossInConfig
from lossreg.errors import DeclinedError
from lossreg.hosts import stand_ins

pytestmark = pytest.mark.openmmlab

pytest.importorskip('mmdet', reason='needs the real OpenMMLab packages: tests/openmmlab/install.sh VENV')

CENSUS = json.loads((Path(__file__).parents[2] / 'docs/host_classes.json').read_text())['classes']
"""The arguments found by ``census.py``, by the host class's full name."""

SETS = [(host, row['arguments']) for host in CENSUS if host in stand_ins() for row in CENSUS[host]]


LEFT_TO_HEADS = [s for s in SETS if stand_ins()[s[0]].host_class.left_to_heads.keys() & s[1].keys()]
"""Arguments from which no class is built; ``lossreg check`` says why."""

LEFT_OUT = {'mmrotate.KFLoss': {'beta'}, 'mmpose.SemiSupervisionLoss': {'warmup_iterations'}}
"""Arguments with another meaning in the host, a difference that the host's test file shows."""


def held_in_float32(argument: Any) -> Any:
    """Class weights rounded to float32 as in our buffers; hosts keep Python numbers."""
    return np.float32(argument).tolist() if isinstance(argument, (float, list)) else argument


def pairs_of(host: str, arguments: dict[str, Any]) -> Iterator[Pair]:
    """Our loss as ``lossreg check`` builds it for the config, in its calls, without and with optional inputs."""
    arguments = {key: value for key, value in arguments.items() if key not in LEFT_OUT.get(host, ())}
    if 'class_weight' in arguments:
        arguments['class_weight'] = held_in_float32(arguments['class_weight'])
    request = LossInConfig(host, host, arguments, host_class=host, stand_in=stand_ins()[host]).request()
    with DefaultScope.overwrite_default_scope(host.partition('.')[0]):
        theirs = adapted(host, host_loss(host, arguments))
    by_hand = {host, (host, request.variant)} & (FAILS | BY_HAND)
    for unit in () if by_hand else request.units():
        pair = paired(unit, theirs)
        if (host, unit.call.name) not in FAILS and pair.is_callable and comparable(unit, unit.loss):
            yield pair


def without_ignored(pair: Pair, inputs: dict[str, Any]) -> dict[str, Any]:
    """Inputs for mmseg's class weights, which it looks up for the ignored label -100 too, in vain or at the end."""
    if getattr(pair.host, 'class_weight', None) is None or not type(pair.host).__module__.startswith('mmseg.'):
        return inputs
    return {name: x.clamp(min=0) if isinstance(x, Tensor) and not x.is_floating_point() else x
            for name, x in inputs.items()}  # fmt: skip


@pytest.mark.filterwarnings('ignore:metainfo file')  # paths in configs are relative to a checkout
@pytest.mark.parametrize(
    ('host', 'arguments'),
    [pytest.param(*s, id=f'{s[0]} {json.dumps(s[1])[:80]}') for s in SETS if s not in LEFT_TO_HEADS],
)
def test_same_numbers(host, arguments):
    if not packages.is_installed(host.partition('.')[0]):
        pytest.skip('not installed')
    for pair in pairs_of(host, arguments):
        for what, inputs in ordinary_inputs(pair.ours):
            if 'large' not in what:  # test_hosts covers float32, in which some gradients of large numbers cancel
                assert_agree(pair, without_ignored(pair, inputs), what)


@pytest.mark.parametrize(('host', 'arguments'), LEFT_TO_HEADS)
def test_what_heads_make_others_of_is_said(host, arguments):
    with pytest.raises(DeclinedError, match='makes'):
        next(pairs_of(host, arguments))
