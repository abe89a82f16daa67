"""What is done to traced graphs, each change alone, and what a graph's signature says."""

import pytest
import torch
from torch import nn
from torch.export import Dim
from torch.fx.experimental.proxy_tensor import make_fx

from lossreg.errors import DeclinedError
from lossreg.exporters import trace
from lossreg.exporters.signature import Port, Signature

aten = torch.ops.aten


def graph_of(function, *shapes):
    return make_fx(function)(*(torch.ones(shape) for shape in shapes))


def targets(graph):
    return [node.target for node in graph.graph.nodes if node.op == 'call_function']


def signature(*ports):
    return Signature('test', tuple(Port(*port) for port in ports), ('y',), {})


# Signatures


def test_symbols_are_dynamic_and_numbers_are_not():
    assert Port('x', ('N', '3', 'K')).dynamic == {0: 'N', 2: 'K'}


def test_dimensions_of_one_name_are_shared():
    found = signature(('x', ('N', '3', 'K')), ('y', ('N', '3')), ('z', ('M', 'N', 'M')))
    assert list(found.shared_dimensions()) == [[('x', 0), ('y', 0), ('z', 1)], [('z', 0), ('z', 2)]]


def test_a_dimension_is_named_where_it_is_met_first():
    found = signature(('x', ('N', '3')), ('y', ('K', 'N')), ('z', ('3',)))
    assert trace.dimension_names(found) == ({0: 'N'}, {0: 'K', 1: Dim.DYNAMIC}, None)


def test_inputs_get_names_that_python_can_hold_each_its_own():
    graph = graph_of(lambda a, b, c: a + b + c, 2, 2, 2)
    trace._name_inputs(graph, signature(('a.b', ('2',)), ('a_b', ('2',)), ('c', ('2',))))
    names = [node.name for node in graph.graph.nodes if node.op == 'placeholder']
    assert names == [node.target for node in graph.graph.nodes if node.op == 'placeholder'] == ['a_b', 'a_b_1', 'c']


# In place


def test_the_functional_operator_of_one_in_place():
    assert trace._functional(aten.add_.Tensor) is aten.add.Tensor
    assert trace._functional(aten.pow_.Scalar) is aten.pow.Tensor_Scalar
    assert trace._functional(aten.add.Tensor) is None
    assert trace._functional(torch.add) is None


def viewed_and_written(x):
    y = x * 2
    view = y.view(-1)
    y.add_(1)
    return view + 1


def written_through_a_view(x):
    y = x * 2
    y[0].add_(1)
    return y + 1


CASES = {
    'into what was made': (lambda x: (x * 2).add_(x), False),
    'twice': (lambda x: (x * 2).add_(x).mul_(x), False),
    'a view that is read': (lambda x: (x * 2).view(-1) + 1, False),
    'a view of what is written': (viewed_and_written, True),
    'through a view': (written_through_a_view, True),
    'an input': (lambda x: x.add_(1), True),
    'a view of an input': (lambda x: x.view(-1).mul_(2), True),
}


@pytest.mark.parametrize(('function', 'expected'), CASES.values(), ids=CASES)
def test_what_writes_into_memory_that_is_shared(function, expected):
    assert trace._writes_through_views(graph_of(function, (2, 3))) == expected


def test_nothing_is_written_in_place_and_the_numbers_stay():
    def function(x):
        y = x * 2
        z = y.add_(x)
        return z.pow_(2) + y

    graph, x = graph_of(function, 3), torch.tensor([1.0, -2.0, 0.5])
    expected = function(x.clone())
    trace._write_nothing_in_place(graph)
    assert targets(graph)[:3] == [aten.mul.Tensor, aten.add.Tensor, aten.pow.Tensor_Scalar]
    assert torch.equal(graph(x), expected)


def test_a_module_that_writes_into_its_input_is_refused_by_the_inputs_name():
    graph = graph_of(torch.func.functionalize(lambda x, y: y.add_(x)), 2, 2)
    with pytest.raises(DeclinedError, match='test writes into its input second in place'):
        trace._refuse_written_inputs(graph, signature(('first', ('2',)), ('second', ('2',))))
    trace._refuse_written_inputs(graph_of(lambda x: x + 1, 2), signature(('first', ('2',))))


# Sizes


def test_arithmetic_with_sizes_takes_tensors():
    def function(x):
        n = x.size(0)
        return x + n, x - n, x * n, x / n, x * 2

    graph = make_fx(function, tracing_mode='symbolic')(torch.ones(3, 2))
    trace._give_sizes_as_tensors(graph)
    found = [target for target in targets(graph) if target is not aten.sym_size.int]
    assert found == [aten.add.Tensor, aten.sub.Tensor, aten.mul.Tensor, aten.div.Tensor, aten.mul.Tensor]
    assert not {aten.add.Scalar, aten.sub.Scalar, aten.mul.Scalar, aten.div.Scalar} & set(targets(graph))


class Sum(nn.Module):
    def forward(self, x, y):
        return x.sum() + y.sum()


def test_a_program_compares_dimensions_of_one_name():
    """No operator does: they are summed each for itself."""
    ports = signature(('x', ('N', '2')), ('y', ('N',)))
    program = trace.trace_module(Sum(), (torch.ones(3, 2), torch.ones(3)), ports, {})
    assert program.module()(torch.ones(5, 2), torch.ones(5)) == 15
    with pytest.raises((RuntimeError, AssertionError)):
        program.module()(torch.ones(5, 2), torch.ones(4))
    with pytest.raises((RuntimeError, AssertionError)):
        program.module()(torch.ones(5, 3), torch.ones(5))


def test_a_program_remembers_no_sources():
    ports = signature(('x', ('N', '2')), ('y', ('N',)))
    program = trace.trace_module(Sum(), (torch.ones(3, 2), torch.ones(3)), ports, {})
    for node in program.graph.nodes:
        assert node.meta.keys() <= {'val', 'tensor_meta'}
