"""Autocast changes neither values nor gradients of eager, scripted, compiled and exported losses."""

import io
from contextlib import nullcontext

import pytest
import torch
from failures import Failures
from torch.utils._python_dispatch import TorchDispatchMode
from units import DEFAULTS, label

from lossreg.ops.products import matmul
from lossreg.registry import build_loss
from lossreg.samples import draw
from lossreg.unit import FlatLoss

REGIONS = [('forward and backward', True, True), ('forward', True, False), ('backward', False, True)]


def region(entered=True):
    return torch.autocast('cpu', dtype=torch.bfloat16) if entered else nullcontext()


def cast(unit, inputs, dtype):
    """The inputs in a dtype, except labels, and state, which stays float32."""
    kept = {i.name for i in unit.inputs if i.state}
    return {n: t.to(dtype) if t.is_floating_point() and n not in kept else t for n, t in inputs.items()}


def computed(unit, function, inputs, forward=False, backward=False):
    """The results of a unit and the gradients of its inputs and parameters, each computed in a region or outside."""
    differentiable = {i.name for i in unit.differentiable}
    tensors = [t.clone().requires_grad_(name in differentiable) for name, t in inputs.items()]
    with region(forward):
        results = function(*tensors)
    results = results if isinstance(results, tuple) else (results,)
    loss = sum(results[unit.results.index(name)].sum() for name in unit.call.losses)
    leaves = [t for t in (*tensors, *unit.loss.parameters()) if t.requires_grad]
    with region(backward):
        gradients = torch.autograd.grad(loss, leaves, materialize_grads=True) if loss.requires_grad else ()
    return [t.detach() for t in (*results, *gradients)]


class RoundedByAutocast(TorchDispatchMode):
    """Records the operators whose results have another dtype in an autocast region."""

    def __init__(self):
        super().__init__()
        self.operators = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        if func._schema.is_mutable or not isinstance(result, torch.Tensor):
            return result
        with region():
            other = func(*args, **(kwargs or {}))
        if other.dtype != result.dtype:
            self.operators.add(str(func))
        return result


def rounded_operators(unit):
    with RoundedByAutocast() as seen:
        computed(unit, FlatLoss(unit), draw(unit))
    return seen.operators


@pytest.mark.parametrize('units', DEFAULTS.values(), ids=DEFAULTS)
def test_eager_is_the_same_to_the_bit(units):
    with Failures() as failures:
        for unit in units:
            function = FlatLoss(unit)
            # autocast cannot even concatenate tensors of the other half precision
            for dtype in (torch.float32, torch.bfloat16, torch.float16):
                inputs = cast(unit, draw(unit), dtype)
                plain = computed(unit, function, inputs)
                for where, forward, backward in REGIONS:
                    with failures.of(f'{label(unit)}, {where} in autocast, {dtype}'):
                        for found, expected in zip(
                            computed(unit, function, inputs, forward, backward), plain, strict=True
                        ):
                            assert found.dtype == expected.dtype
                            assert torch.equal(found, expected), f'{found} for {expected}'


def flat_script(unit):
    """The scripted loss as a function of the unit's inputs."""
    scripted = torch.jit.script(unit.loss)

    def run(*tensors):
        arguments = unit.arguments({i.name: t for i, t in zip(unit.inputs, tensors, strict=True)})
        method = unit.call.method
        returned = (getattr(scripted, method) if method else scripted)(**arguments)
        return tuple(returned[name] for name in unit.results) if unit.call.returns_dict else returned

    return run


def test_scripted_is_the_same():
    """Only units with operators that autocast rounds can go wrong in TorchScript."""
    seen, losses = set(), set()
    with Failures() as failures:
        for unit in (unit for units in DEFAULTS.values() for unit in units):
            if operators := rounded_operators(unit):
                seen |= operators
                losses.add(unit.name)
                with failures.of(label(unit)):
                    assert_scripted_is_the_same(unit)
    assert seen >= {'aten.mm.default', 'aten.bmm.default'}
    assert len(losses) > 15


def assert_scripted_is_the_same(unit):
    function = flat_script(unit)
    for dtype in (torch.float32, torch.bfloat16):
        inputs = cast(unit, draw(unit), dtype)
        plain = computed(unit, FlatLoss(unit), inputs)
        # a backward pass in a region, of a result from outside, must not change later results
        for forward, backward in ((False, False), (False, True), (False, False), (True, True), (True, False)):
            found = computed(unit, function, inputs, forward, backward)
            if backward and not forward:
                continue
            for a, b in zip(found, plain, strict=True):
                assert a.dtype == b.dtype
                # products have another precision or order
                tolerance = 1e-6 if a.dtype == torch.float32 else 1e-2
                largest = b.abs().max().item() if b.numel() else 0.0
                torch.testing.assert_close(a, b, rtol=10 * tolerance, atol=tolerance * max(largest, 1.0))


def test_files(exported, unit_of):
    """TorchScript files give the same numbers; pt2 files cannot, so they raise."""
    inputs = list(draw(unit_of('ArcFaceLoss')).values())
    files = exported('ArcFaceLoss', grad=True)
    scripted = torch.jit.load(io.BytesIO(files['torchscript']))
    program = torch.export.load(io.BytesIO(files['pt2'])).module()
    plain = scripted(*inputs)
    torch.testing.assert_close(program(*inputs), plain, rtol=1e-5, atol=1e-5)
    with region():
        found = scripted(*inputs)
        with pytest.raises(RuntimeError, match=r'dtype mismatch.*Float.*BFloat16'):
            program(*inputs)
    torch.testing.assert_close(found, plain, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize('backend', ['eager', 'aot_eager'])
def test_compiled(backend):
    loss, (x, label) = classifier()
    compiled = torch.compile(loss, backend=backend, fullgraph=True)
    plain = torch.autograd.grad(loss(x, label), [x, loss.weight])
    for backward in (True, False):
        with region():
            value = compiled(x, label)
        with region(backward):
            found = torch.autograd.grad(value, [x, loss.weight])
        torch.testing.assert_close(found, plain, rtol=1e-5, atol=1e-6)


def classifier():
    torch.manual_seed(0)
    loss = build_loss({'type': 'NormFaceLoss', 'in_features': 6, 'num_classes': 5})
    return loss, (torch.randn(4, 6, requires_grad=True), torch.tensor([0, 1, 4, 2]))


SHAPES = [((3, 4), (4, 2)), ((2, 3, 4), (2, 4, 5)), ((2, 3, 4), (4, 5)), ((3, 4), (2, 2, 4, 5)), ((0, 3, 4), (4, 5))]


@pytest.mark.parametrize('shapes', SHAPES, ids=str)
def test_derivatives_of_a_product(shapes):
    """First and second derivatives, in backward and forward mode, against finite differences."""
    a, b = (torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in shapes)
    assert torch.equal(matmul(a, b), a @ b)
    assert torch.autograd.gradcheck(matmul, (a, b), check_forward_ad=True)
    assert torch.autograd.gradgradcheck(matmul, (a, b))


@pytest.mark.parametrize('inputs', ['tensors', 'parameters'])
def test_second_derivatives_of_a_product(inputs):
    a, b = torch.randn(3, 4), torch.randn(4, 2)
    a, b = (torch.nn.Parameter(t) if inputs == 'parameters' else t.requires_grad_() for t in (a, b))

    def twice(entered):
        loss = matmul(a, b).pow(3).sum()
        with region(entered):
            first = torch.autograd.grad(loss, (a, b), create_graph=True)
            return torch.autograd.grad(sum(g.pow(2).sum() for g in first), (a, b))

    for found, expected in zip(twice(True), twice(False), strict=True):
        assert torch.equal(found, expected)


def test_transforms_of_a_product():
    a, b = torch.randn(3, 4), torch.randn(4, 2)

    def all_of(product):
        def loss(a, b):
            return product(a, b).sin().sum()

        batched = torch.func.vmap(torch.func.grad(loss), (0, None))(a.unsqueeze(1), b)
        return torch.func.grad(loss, (0, 1))(a, b), torch.func.hessian(loss)(a, b), batched

    expected = all_of(torch.matmul)
    torch.testing.assert_close(all_of(matmul), expected)
    with region():
        torch.testing.assert_close(all_of(matmul), expected, rtol=1e-5, atol=1e-5)
