"""The primitives that all losses share, each alone in eager mode and in TorchScript: values, gradients, refusals."""

import math
import re

import pytest
import torch
from torch import tensor
from torch.fx.experimental.proxy_tensor import make_fx

from lossreg import arith
from lossreg.ops import binary_cross_entropy as cross_entropies

INF, NAN = math.inf, math.nan
FORMS = pytest.mark.parametrize('form', [lambda f: f, torch.jit.script], ids=['eager', 'scripted'])
LEAST = torch.finfo(torch.float32).tiny


def close(found, wanted, rtol=1e-12):
    wanted = torch.as_tensor(wanted, dtype=found.dtype)
    torch.testing.assert_close(found, wanted, rtol=rtol, atol=0.0, equal_nan=True)


def doubles(*numbers):
    return tensor(numbers, dtype=torch.float64, requires_grad=True)


def gradient_of(function, x, *others):
    return torch.autograd.grad(function(x, *others).sum(), x)[0]


def holds(function, points, slopes=None, *others):
    """Whether a function has these values at these points, and these derivatives."""
    x = doubles(*points)
    close(function(x, *others), list(points.values()))
    if slopes is not None:
        close(gradient_of(function, x, *others), slopes)


# Dtypes


@FORMS
def test_half_precision_integers_and_booleans_become_float32(form):
    upcast = form(arith.upcast)
    for dtype in (torch.float16, torch.bfloat16, torch.int8, torch.int64, torch.bool):
        assert upcast(torch.ones(2, dtype=dtype)).dtype == torch.float32
    for dtype in (torch.float32, torch.float64):
        assert upcast(torch.ones(2, dtype=dtype)).dtype == dtype


@FORMS
def test_two_get_the_wider_dtype(form):
    upcast_alike = form(arith.upcast_alike)
    dtypes = {torch.float16: torch.float32, torch.float32: torch.float32, torch.float64: torch.float64}
    for a, wide_a in dtypes.items():
        for b, wide_b in dtypes.items():
            wanted = torch.float64 if torch.float64 in (wide_a, wide_b) else torch.float32
            found = upcast_alike(torch.ones(1, dtype=a), torch.zeros(1, dtype=b))
            assert [x.dtype for x in found] == [wanted, wanted]
            assert [x.item() for x in found] == [1.0, 0.0]


@FORMS
def test_a_choice_of_numbers_has_the_dtype_asked_for(form):
    for dtype in (torch.float32, torch.float64):
        found = form(arith.choose)(tensor([True, False]), 0.1, 0.7, torch.ones(3, dtype=dtype))
        torch.testing.assert_close(found, tensor([0.1, 0.7], dtype=dtype), rtol=0, atol=0)


# Masks


@FORMS
def test_what_does_not_count_is_0_with_its_gradient(form):
    x, counted = doubles(2.0, NAN, INF, NAN), tensor([True, False, False, True])
    keep = form(arith.keep)
    close(keep(x, counted), [2.0, 0.0, 0.0, NAN])
    close(gradient_of(lambda x: keep(x, counted) ** 2, x), [4.0, 0.0, 0.0, NAN])


@FORMS
def test_what_is_illegal_is_nan_with_its_gradient(form):
    x, legal = doubles(2.0, 3.0), tensor([True, False])
    close(form(arith.poison)(x, legal), [2.0, NAN])
    close(gradient_of(form(arith.poison), x, legal), [1.0, NAN])


# Roots and lengths


@FORMS
def test_roots(form):
    holds(form(arith.root), {0.0: 0.0, 4.0: 2.0, 1e-300: 1e-150, INF: INF}, [0.0, 0.25, 5e149, 0.0])


@FORMS
def test_lengths_of_vectors(form):
    x = doubles([3.0, 4.0], [0.0, 0.0], [-5.0, 0.0])
    close(form(arith.vector_length)(x), [5.0, 0.0, 5.0])
    close(gradient_of(form(arith.vector_length), x), [[0.6, 0.8], [0.0, 0.0], [-1.0, 0.0]])


@FORMS
def test_lengths_of_rows_have_a_lower_limit(form):
    x = doubles([3.0, 4.0], [0.0, 0.0], [3e-13, 0.0], [2e-12, 0.0], [INF, 1.0])
    row_lengths = form(arith.row_lengths)
    close(row_lengths(x), [[5.0], [1e-12], [1e-12], [2e-12], [INF]])
    close(gradient_of(row_lengths, x)[:4], [[0.6, 0.8], [0.0, 0.0], [0.0, 0.0], [1.0, 0.0]])
    close(form(arith.normalize)(x)[:4], [[0.6, 0.8], [0.0, 0.0], [0.3, 0.0], [1.0, 0.0]])


# Logarithms and exponentials


@FORMS
def test_log_sum_exp_in_two_parts(form):
    x = doubles([1.0, 2.0, -INF], [1e4, 1e4, -1e4], [-800.0, -900.0, -800.0], [INF, 0.0, 0.0])
    largest, rest = form(arith.log_sum_exp)(x)
    close(largest, [2.0, 1e4, -800.0, 0.0])
    assert not largest.requires_grad
    close(rest, [math.log1p(math.exp(-1)), math.log(2), math.log(2), INF])
    close(gradient_of(lambda x: form(arith.log_sum_exp)(x)[1], x)[:3], torch.softmax(x[:3], 1).detach())


@FORMS
def test_softplus_and_sigmoid(form):
    holds(form(arith.softplus), {-800.0: 0.0, -1.0: math.log1p(math.exp(-1)), 0.0: math.log(2), 800.0: 800.0})
    points = {-700.0: math.exp(-700), -18.5: 1 / (1 + math.exp(18.5)), 0.0: 0.5, 3.0: 1 / (1 + math.exp(-3)), INF: 1.0}
    holds(form(arith.sigmoid), points)
    for x in (-18.5, 0.0, 3.0):
        s = points[x]
        close(gradient_of(form(arith.sigmoid), doubles(x)), [s * (1 - s)])


LOGITS = (-INF, -1e4, -3.0, 0.0, 0.5, 3.0, 1e4, INF)


def soft(x):
    return max(x, 0.0) + math.log1p(math.exp(-abs(x)))


def product(factor, x):
    return 0.0 if factor == 0 else factor * x


@FORMS
@pytest.mark.parametrize('t', [0.0, 0.25, 0.5, 1.0, 1.5])
def test_binary_cross_entropy_with_logits(form, t):
    function = form(cross_entropies.binary_cross_entropy_with_logits)
    x, target = doubles(*LOGITS), torch.full((len(LOGITS),), t, dtype=torch.float64)
    # in a target above 1, as in no probability, infinities may differ
    ends = slice(None) if t <= 1 else slice(1, -1)
    wanted = [product(t, soft(-x)) + product(1 - t, soft(x)) for x in LOGITS]
    close(function(x, target)[ends], wanted[ends])
    close(gradient_of(function, x, target)[ends], (torch.sigmoid(x).detach() - t)[ends], rtol=1e-9)


@FORMS
@pytest.mark.parametrize('w', [0.0, 1.0, 2.5])
@pytest.mark.parametrize('t', [0.0, 0.25, 1.0])
def test_binary_cross_entropy_with_logits_and_a_weight_of_positives(form, t, w):
    function = form(cross_entropies.binary_cross_entropy_with_logits)
    x, target = doubles(*LOGITS), torch.full((len(LOGITS),), t, dtype=torch.float64)
    weight = tensor(w, dtype=torch.float64)
    close(function(x, target, weight), [product(w * t, soft(-x)) + product(1 - t, soft(x)) for x in LOGITS])
    s = torch.sigmoid(x[1:-1]).detach()
    close(gradient_of(function, x, target, weight)[1:-1], (1 - t) * s - w * t * (1 - s), rtol=1e-9)


@FORMS
def test_logarithms_of_probabilities(form):
    holds(
        form(arith.negative_log),
        {
            0.0: 100.0,
            1e-50: 100.0,
            1e-20: 20 * math.log(10),
            0.25: math.log(4),
            1.0: 0.0,
            1.1: NAN,
            -0.1: NAN,
            NAN: NAN,
        },
    )
    close(gradient_of(form(arith.negative_log), doubles(0.0, 0.25, 1.0)), [0.0, -4.0, -1.0])
    rest = form(arith.negative_log_of_rest)
    holds(rest, {1.0: 100.0, 0.75: math.log(4), 1e-20: 1e-20, 0.0: 0.0, -0.1: NAN, 1.1: NAN, NAN: NAN})
    close(gradient_of(rest, doubles(1.0, 0.75, 1e-20, 0.0)), [0.0, 4.0, 1.0, 1.0])


@FORMS
def test_the_logarithm_of_the_rest_keeps_small_numbers(form):
    function = form(arith.log_of_rest)
    for dtype, rtol in ((torch.float32, 3e-7), (torch.float64, 1e-14)):
        p = tensor([1e-30, 1e-10, 1e-4, 0.3, 0.999], dtype=dtype)
        close(function(p).double(), torch.log1p(-p.double()), rtol=rtol)
        eps = tensor(1e-6, dtype=dtype).item()
        # of each term that is small, the error is that of its own rounding
        found = function(p, eps).double()
        torch.testing.assert_close(found, torch.log1p(eps - p.double()), rtol=rtol, atol=1e-13)
    close(gradient_of(function, doubles(0.3, 0.0), 0.2), [-1 / 0.9, -1 / 1.2])


@FORMS
def test_binary_cross_entropy_of_probabilities(form):
    function = form(cross_entropies.binary_cross_entropy)
    p, t = doubles(0.0, 0.0, 1.0, 1.0, 0.25, 0.25, 0.25), doubles(0.0, 1.0, 0.0, 1.0, 0.0, 1.0, 0.5).detach()
    log4, log43 = math.log(4), math.log(4 / 3)
    close(function(p, t), [0.0, 100.0, 100.0, 0.0, log43, log4, (log4 + log43) / 2])
    close(gradient_of(function, p, t), [1.0, 0.0, 0.0, -1.0, 4 / 3, -4.0, -2 + 2 / 3])


@FORMS
def test_powers_have_a_derivative_at_0(form):
    holds(form(arith.power), {0.0: LEAST**0.5, 4.0: 2.0, LEAST / 4: LEAST**0.5}, [0.0, 0.25, 0.0], 0.5)
    x, exponents = doubles(0.0, 4.0, 4.0), doubles(0.5, 0.5, 2.0).detach()
    close(form(arith.powers)(x, exponents), [LEAST**0.5, 2.0, 16.0])
    close(gradient_of(form(arith.powers), x, exponents), [0.0, 0.25, 8.0])


@FORMS
def test_one_minus_the_exponential_keeps_small_numbers(form):
    for dtype, rtol in ((torch.float32, 3e-6), (torch.float64, 1e-13)):
        h = tensor([0.0, 1e-30, 1e-5, 0.0199, 0.02, 0.0201, 3.0, INF], dtype=dtype, requires_grad=True)
        close(form(arith.one_minus_exp)(h).double(), -torch.expm1(-h.detach().double()), rtol=rtol)
        close(gradient_of(form(arith.one_minus_exp), h).double(), torch.exp(-h.detach().double()), rtol=1e-5)


def test_a_parameter_is_overwritten_in_place():
    parameter = torch.nn.Parameter(torch.zeros(2))
    arith.overwrite(parameter, tensor([1.0, 2.0]))
    assert parameter.tolist() == [1.0, 2.0]
    assert parameter.grad_fn is None


# Shapes: what is taken, and what is refused


def of(*sizes):
    return torch.zeros(sizes)


TAKEN = [
    (arith.check_state, of(2), 's'),
    (arith.check_same_shape, of(2, 3), of(2, 3), 'a', 'b'),
    (arith.check_weight_shape, of(2, 3), of(2, 3), 'w', 'x'),
    (arith.check_weight_shape, of(2, 1), of(2, 3), 'w', 'x'),
    (arith.check_weight_shape, of(2, 1, 4), of(2, 3, 4), 'w', 'x', 1),
    (arith.check_shape_or_one, of(2, 3, 4), of(2, 3, 4), [1, -1], 'a', 'b'),
    (arith.check_shape_or_one, of(2, 1, 1), of(2, 3, 4), [1, -1], 'a', 'b'),
    (arith.check_leading_shape, of(2, 3), of(2, 3, 4), 2, 'a', 'b'),
    (arith.check_class_map, of(2, 4), of(2, 3, 4), 'y', 'x'),
    (arith.check_class_map, of(2), of(2, 3), 'y', 'x'),
    (arith.check_class_map, of(2, 3), of(2, 3, 4), 'y', 'x', 2),
    (arith.check_size, of(2, 3), 1, 3, 'x', 'classes'),
    (arith.check_at_least, of(2, 3), 1, 3, 'x', 'k'),
    (arith.check_size_among, of(2, 3), 1, [1, 3], 'x', 'channels'),
    (arith.check_multiple_size, of(2, 6), 1, 3, 'x', 'bins'),
    (arith.check_multiple_size, of(2, 0), 1, 0, 'x', 'bins'),
    (arith.check_dim, of(2, 3), 2, 'x'),
    (arith.check_broadcast, of(3), of(2, 3), 'a', 'b'),
    (arith.check_broadcast, of(), of(2, 3), 'a', 'b'),
    (arith.check_broadcast, of(1, 3), of(2, 3), 'a', 'b', 1),
    (arith.check_broadcast, of(2, 3), of(2, 3), 'a', 'b', 0),
]
REFUSED = [
    ('s is in half precision', arith.check_state, of(2).half(), 's'),
    ('s is in half precision', arith.check_state, of(2).bfloat16(), 's'),
    ('a has shape [2, 1] and b has shape [2, 3]', arith.check_same_shape, of(2, 1), of(2, 3), 'a', 'b'),
    ('w has shape [1, 3] and x has shape [2, 3]', arith.check_weight_shape, of(1, 3), of(2, 3), 'w', 'x'),
    ('the last dimension of the first 1', arith.check_weight_shape, of(2), of(2, 3), 'w', 'x'),
    ('or dimension 1 of the first 1', arith.check_weight_shape, of(2, 3, 1), of(2, 3, 4), 'w', 'x', 1),
    ('or dimension 0 of the first 1', arith.check_weight_shape, of(2, 1), of(2, 3), 'w', 'x', 0),
    ('the first 1 in dimensions [1, -1]', arith.check_shape_or_one, of(1, 3, 4), of(2, 3, 4), [1, -1], 'a', 'b'),
    ('a has shape [2, 2, 4]', arith.check_shape_or_one, of(2, 2, 4), of(2, 3, 4), [1, -1], 'a', 'b'),
    ('a has shape [2, 3]', arith.check_shape_or_one, of(2, 3), of(2, 3, 4), [1, -1], 'a', 'b'),
    ('a has shape [1, 1, 4]', arith.check_shape_or_one, of(1, 1, 4), of(2, 3, 4), [1, -1], 'a', 'b'),
    ('the first 2 dimensions must be equal', arith.check_leading_shape, of(2, 1), of(2, 3, 4), 2, 'a', 'b'),
    ('without dimension 1, the classes', arith.check_class_map, of(2, 3), of(2, 3, 4), 'y', 'x'),
    ('y has shape [1] and x has shape [2, 3]', arith.check_class_map, of(1), of(2, 3), 'y', 'x'),
    ('y has shape [2] and x has shape [2]', arith.check_class_map, of(2), of(2), 'y', 'x'),
    ('there are 4 classes in dimension 1', arith.check_size, of(2, 3), 1, 4, 'x', 'classes'),
    ('x has shape [], but there are 1', arith.check_size, of(), 0, 1, 'x', 'classes'),
    ('k asks for 4 in dimension 1', arith.check_at_least, of(2, 3), 1, 4, 'x', 'k'),
    ('dimension 1 must be a multiple of 2', arith.check_multiple, of(2, 3), 1, 2, 'x'),
    ('dimension 1 of the first must be 2 times', arith.check_factor, of(2, 3), of(2, 2), 1, 2, 'x', 'y'),
    ('one of [1, 4] channels in dimension 1', arith.check_size_among, of(2, 3), 1, [1, 4], 'x', 'channels'),
    ('x has shape []', arith.check_size_among, of(), 0, [1, 4], 'x', 'channels'),
    ('a multiple of 4, the bins', arith.check_multiple_size, of(2, 6), 1, 4, 'x', 'bins'),
    ('a multiple of 0, the bins', arith.check_multiple_size, of(2, 6), 1, 0, 'x', 'bins'),
    ('x has shape [2, 3], but must have 3 dimensions', arith.check_dim, of(2, 3), 3, 'x'),
    ('the first must broadcast', arith.check_broadcast, of(2), of(2, 3), 'a', 'b'),
    ('the first must broadcast', arith.check_broadcast, of(1, 2, 3), of(2, 3), 'a', 'b'),
    ('the first must broadcast', arith.check_broadcast, of(2, 1, 2), of(2, 4, 3), 'a', 'b'),
    ('the first must broadcast', arith.check_broadcast, of(1, 1), of(2, 3), 'a', 'b', 1),
    ('the first must broadcast', arith.check_broadcast, of(1, 3), of(2, 3), 'a', 'b', 0),
    ('must hold integers, got', arith.indices, of(2), 'y'),
    ('must hold integers, got', arith.indices, of(2).bool(), 'y'),
    ('must hold integers, got', arith.indices, torch.zeros(2, dtype=torch.complex64), 'y'),
    ('y has shape [2], but there are no classes', arith.check_labels, of(2).long(), 0, None, 'y'),
]


@FORMS
def test_shapes_that_fit_are_taken(form):
    for check, *arguments in TAKEN:
        form(check)(*arguments)


@FORMS
@pytest.mark.parametrize('case', REFUSED, ids=lambda case: case[1].__name__)
def test_shapes_that_do_not_fit_are_refused(case, form):
    message, check, *arguments = case
    with pytest.raises(ValueError if form(check) is check else torch.jit.Error, match=re.escape(message)):
        form(check)(*arguments)


@FORMS
def test_multiples_are_legal(form):
    assert form(arith.check_multiple)(of(2, 6), 1, 3, 'x')
    assert form(arith.check_factor)(of(2, 6), of(2, 2), 1, 3, 'x', 'y')


def test_a_graph_says_of_other_sizes_that_they_are_no_multiples():
    graph = make_fx(lambda x: arith.check_multiple(x, 1, 3, 'x'), tracing_mode='symbolic')(of(2, 6))
    assert [bool(graph(of(2, size))) for size in (3, 4, 9)] == [True, False, True]
    graph = make_fx(lambda x, y: arith.check_factor(x, y, 1, 3, 'x', 'y'), tracing_mode='symbolic')(of(5, 6), of(5, 2))
    assert [bool(graph(of(5, size), of(5, 3))) for size in (6, 9)] == [False, True]


# Integers


def legal_and_refusal(check, *arguments):
    """What a scripted check returns, and what the same check raises in eager mode."""
    legal = torch.jit.script(check)(*arguments)
    try:
        eager = check(*arguments)
    except IndexError as error:
        return legal.tolist(), str(error)
    assert torch.equal(eager, legal)
    return legal.tolist(), ''


def test_labels():
    labels = tensor([-1, 0, 2, 3, 255])
    said = 'y holds -1, but labels go from 0 to 2'
    assert legal_and_refusal(arith.check_labels, labels, 3, None, 'y') == ([False, True, True, False, False], said)
    said = 'y holds 3, but labels go from 0 to 2 (or ignore_index 255)'
    found = legal_and_refusal(arith.check_labels, labels[1:], 3, 255, 'y')
    assert found == ([True, True, False, True], said)
    assert legal_and_refusal(arith.check_labels, labels[:3], 3, -1, 'y') == ([True, True, True], '')


def test_lengths():
    said = 't holds 5, but there are 4 frames'
    assert legal_and_refusal(arith.check_lengths, tensor([0, 4, 5, -1]), 4, 't', 'frames') == (
        [True, True, False, False],
        said,
    )
    assert legal_and_refusal(arith.check_lengths, tensor([0, 4]), 4, 't', 'frames') == ([True, True], '')
    for given in (tensor([2, 3]), tensor([2, 3], dtype=torch.int16), [2, 3], (2, 3)):
        found = arith.as_lengths(given, of(1), 't')
        assert found.dtype == torch.int64
        assert found.tolist() == [2, 3]
    assert arith.as_lengths([], of(1), 't').dtype == torch.int64


def test_numbers():
    x = tensor([0.5, NAN, 2.0, 3.0])
    legal = x <= 1
    found = legal_and_refusal(arith.check_numbers, x, legal, 'x', 'at most {}', 1)
    assert found == (legal.tolist(), 'x holds 2.0, but at most 1')
    assert legal_and_refusal(arith.check_numbers, x[:2], legal[:2], 'x', 'at most 1') == ([True, False], '')


def test_classes_held_as_floats():
    found = legal_and_refusal(arith.check_binary, tensor([0.0, 1.0, NAN, INF, 0.5]), 'y')
    assert found == ([True, True, False, False, False], 'y holds 0.5, but classes are 0 or 1')
    assert legal_and_refusal(arith.check_binary, tensor([0.0, 1.0, NAN]), 'y') == ([True, True, False], '')


def test_every_integer_becomes_int64():
    for form in (arith.indices, torch.jit.script(arith.indices)):
        for dtype in (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64):
            found = form(tensor([1, 100], dtype=dtype), 'y')
            assert found.dtype == torch.int64
            assert found.tolist() == [1, 100]
    wide = tensor([3, 2**63 + 5], dtype=torch.uint64)
    assert arith.indices(wide[:1], 'y').tolist() == [3]
    with pytest.raises(IndexError, match='int64 ends at 9223372036854775807'):
        arith.indices(wide, 'y')
    assert torch.jit.script(arith.indices)(wide, 'y').tolist() == [3, 2**63 - 1]


def test_classes_without_their_fraction():
    for form in (arith.class_indices, torch.jit.script(arith.class_indices)):
        assert form(tensor([2.7, NAN, 0.0]), 'y').tolist() == [2, -1, 0]
        assert form(tensor([2, 1], dtype=torch.uint8), 'y').tolist() == [2, 1]


# Who may look at values


def test_plain_eager_is_a_tensor_on_the_cpu_that_nothing_traces(monkeypatch):
    assert arith.is_plain_eager(of(1))
    assert arith.is_plain_eager(torch.nn.Parameter(of(1)))
    assert arith.is_eager(of(1).to('meta'))
    assert not arith.is_plain_eager(of(1).to('meta'))
    assert not arith.is_eager(of(1).as_subclass(type('Other', (torch.Tensor,), {})))
    monkeypatch.setattr(torch.compiler, 'is_compiling', lambda: True)
    assert not arith.is_eager(of(1))
