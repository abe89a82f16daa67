"""ONNX's node tests of SoftmaxCrossEntropyLoss and NegativeLogLikelihoodLoss, run with our losses.

The installed package has the cases in ``onnx/backend/test/case/node``, as inputs, attributes and outputs. Some have the
log-probabilities as a second output, which is not a loss. The 6 cases with five dimensions besides N and C have no call
in our specs and are exported with a call made here. All cases run eagerly and scripted. By default, as many are
exported as cover every reduction, weighting, ignored label and number of dimensions; the others with ``-m exhaustive``.
"""

import importlib
from dataclasses import dataclass
from functools import cache, cached_property

import numpy as np
import pytest
import torch
from onnx.backend.test.case import node
from onnx.helper import get_attribute_value

from lossreg.compare import compare
from lossreg.exporters import build
from lossreg.registry import build_loss
from lossreg.request import Request
from lossreg.runtimes import OnnxRuntime
from lossreg.spec import Tolerance
from lossreg.spec_parts.torch_nn import indices_call
from lossreg.unit import Unit

OPERATORS = {
    'SoftmaxCrossEntropyLoss': ('softmax_cross_entropy_loss', 'TorchCrossEntropyLoss'),
    'NegativeLogLikelihoodLoss': ('negativeloglikelihoodloss', 'NLLLoss'),
}
"""Our loss by the module of onnx that makes the cases."""

CALLS = {2: 'labels', 3: 'sequences', 4: 'pixels', 5: 'volumes'}
"""Our calls by the number of dimensions of the scores."""


@dataclass(frozen=True)
class Case:
    name: str
    config: dict
    inputs: dict
    loss: np.ndarray

    @property
    def dims(self):
        return self.inputs['input'].dim()

    @cached_property
    def unit(self):
        """Our unit for scores with that many dimensions, or one with a call made here."""
        request = Request.of(self.config)
        if self.dims in CALLS:
            (call,) = (c for c in request.calls() if c.name == CALLS[self.dims])
            return request.unit(call, ())
        places = ' '.join(f'D{i}' for i in range(self.dims - 2))
        role = request.calls()[0].inputs[0].role
        call = indices_call('places', role, f'N C {places}', f'N {places}')
        return Unit(request.loss, request.config, request.variant, call, call.inputs, request.loss.spec)

    @property
    def features(self):
        """The features that an export of a case covers."""
        ignored = self.config.get('ignore_index', -100)
        kind = 'none' if ignored == -100 else 'negative' if ignored < 0 else 'a class' if ignored < 5 else 'above'
        return {self.config['type'], self.config['reduction'], 'weight' in self.config, kind, self.dims}


@cache
def cases(operator):
    """All cases but those that decompose the operator."""
    module, loss_name = OPERATORS[operator]
    importlib.import_module(f'{node.__name__}.{module}')
    found = []
    for case in node._NodeTestCases:
        if [n.op_type for n in case.model.graph.node] != [operator]:
            continue
        ((scores, labels, *weight), (loss, *_)) = case.data_sets[0]
        options = {a.name: get_attribute_value(a) for a in case.model.graph.node[0].attribute}
        options['reduction'] = options['reduction'].decode()
        if weight:
            options['weight'] = weight[0].tolist()
        inputs = {'input': torch.from_numpy(scores), 'target': torch.from_numpy(labels)}
        found.append(Case(case.name, {'type': loss_name, **options}, inputs, loss))
    return found


def covering(cases):
    """A few cases that together cover the features of all, those with the most new features first."""
    chosen, missing = [], set.union(*(case.features for case in cases))
    while missing:
        chosen.append(max(cases, key=lambda case: len(case.features & missing)))
        missing -= chosen[-1].features
    return chosen


def eager(case):
    return build_loss(case.config)(**case.inputs)


def scripted(case):
    return torch.jit.script(build_loss(case.config))(**case.inputs)


def exported(case):
    return _session(str((case.config, case.dims)), case)(case.inputs)['loss']


SESSIONS = {}


def _session(key, case):
    """An ONNX Runtime session for the unit of a case; many cases share one."""
    if key not in SESSIONS:
        SESSIONS[key] = OnnxRuntime(build(case.unit, ['onnx'])['onnx'])
    return SESSIONS[key]


def take(score, taken, form):
    for case in taken:
        with score.case(case.name):
            agreement = compare({'loss': form(case)}, {'loss': case.loss}, Tolerance())
            assert agreement, agreement.detail


@pytest.mark.parametrize('form', [eager, scripted], ids=lambda form: form.__name__)
def test_onnx_node_tests(form, score):
    take(score, every_case(), form)
    score.settle(at_least=52)


def every_case():
    return [case for operator in OPERATORS for case in cases(operator)]


@pytest.mark.parametrize(
    ('chosen', 'at_least'),
    [pytest.param(covering, 6, id='covering'), pytest.param(list, 52, id='all', marks=pytest.mark.exhaustive)],
)
def test_onnx_node_tests_exported(chosen, at_least, score):
    take(score, chosen(every_case()), exported)
    score.settle(at_least)
