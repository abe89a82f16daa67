"""What is done to ONNX graphs: each change alone, on a model written by hand.

Most are for faults of older versions of ONNX Runtime, which the installed one does not show: here the graph itself is
looked at, and its numbers are held against those before the change.
"""

import numpy as np
import onnx
import pytest
from onnx.reference import ReferenceEvaluator
from onnxscript import ir

from lossreg.exporters import onnx_graph
from lossreg.exporters.signature import Port, Signature

INF, NAN = np.inf, np.nan


def model_of(inputs, body, outputs):
    """An ``ir.Model`` of a graph in ONNX's own syntax."""
    text = f'<ir_version: 8, opset_import: ["" : 18]> test ({inputs}) => ({outputs}) {{ {body} }}'
    return ir.from_proto(onnx.shape_inference.infer_shapes(onnx.parser.parse_model(text)))


def with_constants(model):
    """Lets values of constant nodes be known, as folding does."""
    for node in model.graph:
        if node.op_type == 'Constant':
            node.outputs[0].const_value = node.attributes['value'].value
    return model


def kinds(model):
    return [node.op_type for node in model.graph.all_nodes()]


def run(model, **inputs):
    """What ONNX's own evaluator, in NumPy, makes of a model that its checker accepts."""
    proto = ir.to_proto(model)
    onnx.checker.check_model(proto, full_check=True)
    with np.errstate(all='ignore'):
        return ReferenceEvaluator(proto).run(None, inputs)


def same_numbers(model, change, **inputs):
    """Changes a model and compares what it gives."""
    before = run(model, **inputs)
    names = [value.name for value in model.graph.outputs]
    change(model)
    assert [value.name for value in model.graph.outputs] == names
    for found, wanted in zip(run(model, **inputs), before, strict=True):
        assert (found.dtype, found.shape) == (wanted.dtype, wanted.shape)
        np.testing.assert_array_equal(found, wanted)


X = np.array([[1.5, -2.0, 0.0], [INF, -INF, 3.0]])


def test_a_clip_gets_the_bound_that_it_lacks():
    body = 'lo = Constant <value = double {-1.0}> () a = Clip (x, lo) b = Clip (x, , lo) c = Clip (x) d = Clip (n)'
    outputs = 'double[N, 3] a, double[N, 3] b, double[N, 3] c, int64[N] d'
    model = with_constants(model_of('double[N, 3] x, int64[N] n', body, outputs))
    same_numbers(model, onnx_graph.fix_open_clips, x=X, n=np.array([2, -3]))
    clips = [node for node in model.graph if node.op_type == 'Clip']
    bounds = [[float(value.const_value.numpy()) for value in node.inputs[1:]] for node in clips]
    assert bounds == [[-1.0, INF], [-INF, -1.0], [-INF, INF], []]
    assert {value.dtype for node in clips[:3] for value in node.inputs} == {ir.DataType.DOUBLE}


def test_one_over_a_number_in_float64_is_a_reciprocal():
    body = """
        one = Constant <value = double {1.0}> () two = Constant <value = double {2.0}> ()
        ones = Constant <value = double[1] {1.0}> () single = Constant <value = float {1.0}> ()
        a = Div (one, x) b = Div (two, x) c = Div (ones, x) d = Div (single, y) e = Div (x, one)
    """
    outputs = 'double[N, 3] a, double[N, 3] b, double[N, 3] c, float[N] d, double[N, 3] e'
    model = with_constants(model_of('double[N, 3] x, float[N] y', body, outputs))
    names = {node.outputs[0].name: node for node in model.graph}
    same_numbers(model, onnx_graph.fix_unit_quotients, x=X, y=np.array([2.0], np.float32))
    assert {name: names[name].op_type for name in 'abcde'} == {
        'a': 'Reciprocal', 'b': 'Div', 'c': 'Div', 'd': 'Div', 'e': 'Div',
    }  # fmt: skip


def test_the_exponential_of_float64_is_0_where_it_must_be():
    assert np.exp(onnx_graph.EXP_IS_ZERO) == 0.0 < np.exp(onnx_graph.EXP_IS_ZERO + 0.1)
    model = model_of(
        'double[N] x, float[N] y', 'a = Exp (x) b = Exp (y) c = Neg (a)', 'double[N] a, float[N] b, double[N] c'
    )
    x = np.array([1.0, -745.0, -745.3, -INF, NAN])
    same_numbers(model, onnx_graph.fix_double_exponentials, x=x, y=x.astype(np.float32))
    assert kinds(model) == ['Exp', 'Less', 'Where', 'Exp', 'Neg']
    assert model.graph[4].inputs[0] is model.graph[2].outputs[0]


def test_nan_is_the_maximum_in_float64_whichever_number_it_is():
    body = 'a = Max (x, y) b = Min (x, y) c = Max (x, y, x) d = Max (z, z)'
    model = model_of('double[N] x, double[N] y, float[N] z', body, 'double[N] a, double[N] b, double[N] c, float[N] d')
    inputs = {'x': np.array([1.0, NAN, 3.0, 0.0]), 'y': np.array([2.0, 1.0, NAN, -1.0]), 'z': np.zeros(4, np.float32)}
    same_numbers(model, onnx_graph.fix_double_maxima, **inputs)
    assert kinds(model) == ['Max', 'IsNaN', 'Where', 'Min', 'IsNaN', 'Where', 'Max', 'Max']
    for nan, where in ((1, 2), (4, 5)):
        assert model.graph[nan].inputs[0].name == 'y'
        assert [value.name for value in model.graph[where].inputs[:2]] == [model.graph[nan].outputs[0].name, 'y']


@pytest.mark.parametrize('inner', [2, 0])
@pytest.mark.parametrize('dtype', [np.float32, np.float64])
def test_a_product_over_nothing_is_0(dtype, inner):
    name = {np.float32: 'float', np.float64: 'double'}[dtype]
    inputs, outputs = f'{name}[N, K] x, {name}[K, M] y, {name}[M, 3] z', f'{name}[N, 3] b, {name}[M, M] d'
    model = model_of(inputs, 'a = MatMul (x, y) b = MatMul (a, z) c = Transpose (z) d = MatMul (z, c)', outputs)
    arrays = {'x': np.ones((4, inner), dtype), 'y': np.ones((inner, 5), dtype), 'z': np.ones((5, 3), dtype)}
    same_numbers(model, onnx_graph.fix_empty_products, **arrays)
    assert kinds(model) == [*2 * ['MatMul', 'Shape', 'Equal', 'Where'], 'Transpose', 'MatMul']
    product, shape, equal, where = list(model.graph)[:4]
    assert shape.inputs[0] is product.inputs[0]
    assert shape.attributes.get_int('start') == -1
    assert equal.inputs[1].const_value.numpy().tolist() == [0]
    assert where.inputs[1].const_value.numpy() == 0
    assert where.inputs[2] is product.outputs[0]


SCAN = """
    s, a, b = Scan <
        num_scan_inputs = 1,
        body = step (double[2] h, double[2] e) => (double[2] g, double[2] p, double[2] q) {
            g = Add (h, e) p = Neg (g) q = Abs (g)
        }
    > (h0, x)
"""


@pytest.mark.parametrize(('used', 'shape'), [('s', '[2]'), ('a', '[N, 2]'), ('b', '[N, 2]')])
def test_results_of_a_scan_that_nobody_uses_get_a_user(used, shape):
    model = model_of('double[2] h0, double[N, 2] x', f'{SCAN} y = Neg ({used})', f'double{shape} y')
    scan = model.graph[0]
    same_numbers(model, onnx_graph.fix_unused_scan_results, h0=np.ones(2), x=np.arange(6.0).reshape(3, 2))
    assert all(value.uses() for value in scan.outputs)
    assert [node.op_type for node in model.graph][1:] == ['Size', 'Size', 'Min', 'Shape', 'Add', 'Reshape', 'Neg']
    assert model.graph[6].attributes.get_int('allowzero') == 1


# Empty dimensions


@pytest.mark.parametrize(
    ('size', 'expected'),
    [
        (3, False), ('K', False), ('N', True), ('2*N', True), ('N + 1', False), ('K - 1', True), ('K + N - 1', True),
        ('K/2', True), ('floor(K)', True), ('NK', False), (None, True),
    ],
)  # fmt: skip
def test_which_dimensions_may_be_empty(size, expected):
    dim = size if isinstance(size, int) else ir.SymbolicDim(size)
    assert onnx_graph._may_be_empty(dim, 'N') == expected
    assert not onnx_graph._may_be_empty(dim, '')


def over(axes, operator='ReduceSum', keepdims=0):
    """A reduction of x to y over these axes."""
    numbers = ', '.join(map(str, axes))
    constant = f'axes = Constant <value = int64[{len(axes)}] {{{numbers}}}> ()'
    return f'{constant} y = {operator} <keepdims = {keepdims}> (x, axes)'


REDUCED = {
    'from the end': (over([-1]), '[N, K]', [2]),
    'the batch': (over([0]), '[K, 3]', [0]),
    'the batch, kept': (over([-3], keepdims=1), '[1, K, 3]', [0]),
    'two, out of order': (over([2, 0]), '[K]', [0, 2]),
    'all': ('y = ReduceSum <keepdims = 0> (x)', '', None),
    'all, by number': (over([0, 1, 2]), '', None),
    'largest': (over([-1], 'ReduceMax'), '[N, K]', [2]),
}


def fix_reductions(model):
    onnx_graph.fix_empty_reductions(model, 'N')


@pytest.mark.parametrize(('body', 'shape', 'axes'), REDUCED.values(), ids=REDUCED)
def test_reductions_count_axes_from_the_front(body, shape, axes):
    for n in (2, 0) if 'Max' not in body else (2,):
        model = with_constants(model_of('double[N, K, 3] x', body, f'double{shape} y'))
        same_numbers(model, fix_reductions, x=np.arange(12.0 * n).reshape(n, 4, 3))
        (reduction,) = (node for node in model.graph if node.op_type.startswith('Reduce'))
        assert (list(reduction.inputs[1].const_value.numpy()) if len(reduction.inputs) > 1 else None) == axes
        # a sum that may run over nothing runs over one 0 more
        is_longer = 'Sum' in body and (axes is None or 0 in axes)
        assert ('Concat' in kinds(model)) == is_longer


@pytest.mark.parametrize('keepdims', [0, 1])
def test_a_sum_over_one_of_two_batches_keeps_the_other(keepdims):
    """No row can be added to one dimension of two of the same name: the sum is followed by its shape."""
    body = f'{over([1], keepdims=keepdims)} z = Neg (y)'
    shape = '[N, 1, 3]' if keepdims else '[N, 3]'
    for n in (2, 0):
        model = with_constants(model_of('double[N, N, 3] x', body, f'double{shape} y, double{shape} z'))
        same_numbers(model, fix_reductions, x=np.arange(3.0 * n * n).reshape(n, n, 3))
        assert kinds(model)[1:] == ['ReduceSum', 'Shape', 'Where', 'Reshape', *([] if keepdims else ['Squeeze']), 'Neg']
        (reshape,) = (node for node in model.graph if node.op_type == 'Reshape')
        assert reshape.attributes.get_int('allowzero') == 1


def test_the_place_of_the_largest_counts_its_axis_from_the_front():
    model = model_of('double[N, K] x', 'y = ArgMax <axis = -1, keepdims = 0> (x)', 'int64[N] y')
    same_numbers(model, fix_reductions, x=X)
    assert model.graph[0].attributes.get_int('axis') == 1
    assert kinds(model) == ['ArgMax']


def test_nothing_is_added_where_no_batch_may_be_empty():
    model = with_constants(model_of('double[N, K] x', over([0]), 'double[K] y'))
    same_numbers(model, lambda m: onnx_graph.fix_empty_reductions(m, ''), x=X)
    assert 'Concat' not in kinds(model)


@pytest.mark.parametrize('axis', [1, -1])
def test_sorting_takes_one_row_more_and_drops_it_again(axis):
    body = f'k = Constant <value = int64[1] {{2}}> () v, i = TopK <axis = {axis}> (x, k) a = Neg (v) b = Neg (i)'
    model = model_of('double[N, 3] x', body, 'double[N, 2] a, int64[N, 2] b')
    same_numbers(model, lambda m: onnx_graph.fix_empty_sorts(m, 'N'), x=X)
    assert kinds(model) == [
        'Constant', 'Shape', 'Where', 'ConstantOfShape', 'Concat', 'TopK', 'Slice', 'Slice', 'Neg', 'Neg',
    ]  # fmt: skip
    for found in run(model, x=X[:0]):
        assert found.shape == (0, 2)


def test_sorting_along_the_only_empty_dimension_stays_as_it_is():
    body = 'k = Constant <value = int64[1] {1}> () v, i = TopK <axis = 0> (x, k) a = Neg (v)'
    model = model_of('double[N, 3] x', body, 'double[M, 3] a')
    same_numbers(model, lambda m: onnx_graph.fix_empty_sorts(m, 'N'), x=X)
    assert kinds(model) == ['Constant', 'TopK', 'Neg']


# Sizes that must be equal


def signature(guard=''):
    inputs = Port('x', ('N', 'K')), Port('y', ('N', '3')), Port('w', ('K', 'N'))
    return Signature('test', inputs, ('a', 'c'), {}, guard=guard)


ARRAYS = {'x': np.ones((2, 3), np.float32), 'y': np.ones((2, 3), np.float32), 'w': np.ones((3, 2), np.float32)}
WRONG = [{'y': (1, 3)}, {'y': (5, 3)}, {'w': (3, 1)}, {'w': (1, 2)}, {'w': (4, 2)}, {'x': (7, 3)}]


@pytest.mark.parametrize('guard', ['', 'x', 'y'])
def test_sizes_that_differ_make_nan(guard):
    body = 'a = Neg (x) b = ReduceSum <keepdims = 0> (y) n = Shape (w) s = ReduceSum <keepdims = 0> (w) c = Add (b, s)'
    model = model_of('float[N, K] x, float[N, 3] y, float[K, N] w', body, 'float[A, B] a, float c, int64[2] n')
    same_numbers(model, lambda m: onnx_graph.guard_shapes(m, signature(guard)), **ARRAYS)
    for wrong in WRONG:
        ((name, shape),) = wrong.items()
        a, c, n = run(model, **{**ARRAYS, name: np.ones(shape, np.float32)})
        assert np.isnan(a).all() == (guard != 'y'), wrong
        assert np.isnan(c) == (guard != 'x'), wrong
        assert n.dtype == np.int64


def test_nothing_is_guarded_where_nothing_is_shared():
    model = model_of('float[N] x, float[M] y', 'a = Neg (x) b = Neg (y)', 'float[N] a, float[M] b')
    onnx_graph.guard_shapes(model, Signature('test', (Port('x', ('N',)), Port('y', ('M',))), ('a', 'b'), {}))
    assert kinds(model) == ['Neg', 'Neg']
