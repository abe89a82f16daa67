"""Faults of torch's exporters and of ONNX Runtime that shape how lossreg is written.

Each test reproduces a fault minimally, and checks that lossreg's workaround gives the right number. If the fault is
gone, upstream has fixed it, and the message says what to reconsider.
"""

import math
from pathlib import Path

import modules
import numpy as np
import onnx
import onnxruntime
import pytest
import torch
import torch.nn.functional as F
from modules import Function
from onnx import TensorProto, helper, numpy_helper
from torch import nn
from torch.export import Dim
from torch.fx.experimental.proxy_tensor import make_fx

from lossreg.arith import poison
from lossreg.exporters import build
from lossreg.formats import OLDEST_ONNXRUNTIME, OLDEST_ONNXRUNTIME_EMPTY_BATCH
from lossreg.ops.binary_cross_entropy import binary_cross_entropy_with_logits
from lossreg.ops.reductions import average_over, total
from lossreg.runtimes import OnnxRuntime
from lossreg.testing import assert_exportable

NAN, INF = math.nan, math.inf


def fixed(what, reconsider):
    return f'upstream has fixed {what}; reconsider {reconsider}'


def exported_by_torch(function, *examples):
    """A function exported by torch with dynamic first dimensions, as a callable that runs it, and its model."""
    module = function if isinstance(function, nn.Module) else Function(function)
    names = [f'x{i}' for i in range(len(examples))]
    dims = tuple({0: Dim.DYNAMIC} for _ in examples)
    shapes = dims if isinstance(function, torch.fx.GraphModule) else (dims,)
    program = torch.onnx.export(
        module.eval(), examples, dynamo=True, verbose=False, opset_version=18, dynamic_shapes=shapes, input_names=names
    )
    return runner(program.model_proto, names), program.model_proto


def runner(model, names):
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=['CPUExecutionProvider'])
    return lambda *tensors: session.run(None, {n: np.asarray(t) for n, t in zip(names, tensors, strict=True)})


def run_node(op, *arrays, output=TensorProto.FLOAT, **attributes):
    """One ONNX operator on ONNX Runtime, with every dimension dynamic."""
    names = [f'x{i}' for i in range(len(arrays))]
    inputs = [
        helper.make_tensor_value_info(n, helper.np_dtype_to_tensor_dtype(a.dtype), [f'{n}_{d}' for d in range(a.ndim)])
        for n, a in zip(names, arrays, strict=True)
    ]
    result = helper.make_tensor_value_info('y', output, None)
    graph = helper.make_graph([helper.make_node(op, names, ['y'], **attributes)], 'one', inputs, [result])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid('', 18)], ir_version=8)
    return runner(model, names)(*arrays)[0]


def floats(*numbers):
    return np.array(numbers, np.float32)


# Wrong translations


def test_label_smoothing_is_dropped(unit_of, exported):
    """F.cross_entropy(label_smoothing=0.1) is exported without the smoothing."""
    scores, label = torch.randn(4, 5), torch.tensor([0, 1, 2, 4])
    run, _ = exported_by_torch(lambda x, y: F.cross_entropy(x, y, label_smoothing=0.1), scores, label)
    plain, smooth = F.cross_entropy(scores, label), F.cross_entropy(scores, label, label_smoothing=0.1)
    assert run(scores, label)[0] == pytest.approx(plain.item()), fixed('label_smoothing', 'F.cross_entropy in losses')
    assert abs(plain - smooth) > 1e-3
    scores, label = torch.randn(6, 4), torch.tensor([0, 1, 2, 3, 1, 0])
    ours = OnnxRuntime(exported('CrossEntropyLoss', grad=True, variant='smoothing', call='labels')['onnx'])
    loss = unit_of('CrossEntropyLoss', 'smoothing').loss
    # torch divides by the sum of the class weights, mmdet and we by the number of samples
    want = F.cross_entropy(scores, label, loss.class_weight, reduction='none', label_smoothing=0.125).mean()
    assert ours({'cls_score': scores, 'label': label})['loss'] == pytest.approx(want.item(), rel=1e-5)


def test_gradient_of_cross_entropy_is_off_by_the_batch_size(exported):
    """The total weight of nll_loss_forward is exported wrongly in a gradient graph."""
    scores, label = torch.randn(4, 5), torch.tensor([0, 1, 2, 4])

    def gradient(x, y):
        x = x.detach().requires_grad_(True)
        return torch.autograd.grad(F.cross_entropy(x, y), x)[0]

    run, _ = exported_by_torch(make_fx(gradient, tracing_mode='symbolic')(scores, label), scores, label)
    right = gradient(scores, label)
    found = run(scores, label)[0]
    assert np.allclose(found, 4 * right, rtol=1e-4), fixed(
        'the gradient of F.cross_entropy', 'F.cross_entropy in losses'
    )
    ours = OnnxRuntime(exported('CrossEntropyLoss', grad=True, call='labels')['onnx'])
    found = ours({'cls_score': scores, 'label': label})['grad_cls_score']
    assert np.allclose(found, right, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(
    'function',
    [lambda x: F.binary_cross_entropy_with_logits(x, torch.full_like(x, 0.5)), lambda x: -F.logsigmoid(x).mean()],
    ids=['binary_cross_entropy_with_logits', 'logsigmoid'],
)
def test_logarithm_of_sigmoid_is_infinite(function):
    """Both are exported as Log(Sigmoid(x)), which is log 0 at -500."""
    run, _ = exported_by_torch(function, torch.zeros(2))
    assert run(floats(-500))[0] == INF, fixed('Log(Sigmoid)', 'softplus in arith')
    ours, _ = exported_by_torch(
        lambda x: binary_cross_entropy_with_logits(x, torch.full_like(x, 0.5)).sum(), torch.zeros(2)
    )
    assert ours(floats(-500))[0] == 250.0


def test_multilabel_margin_loss_is_wrong():
    """The decomposition is wrong (pytorch #185464). Our loss sorts instead."""
    x, target = torch.randn(4, 5), torch.tensor([[3, 0, -1, 1, 2]] * 4)
    run, _ = exported_by_torch(F.multilabel_margin_loss, x, target)
    wrong = abs(run(x, target)[0] - F.multilabel_margin_loss(x, target).item())
    assert wrong > 0.1, fixed('F.multilabel_margin_loss', 'nothing: ours is faster')


def test_double_constants_pass_through_float(unit_of):
    """0.7 is a little less in float32, so ⌊0.7 · 10⌋ is 6. Our translation of scalar_tensor keeps float64."""
    run, _ = exported_by_torch(lambda x: (x.double() * 0.7).floor(), torch.zeros(2))
    assert run(floats(10.0))[0] == 6.0, fixed('float64 constants', 'the translation of scalar_tensor in onnx.py')
    unit = unit_of({'type': 'BalanceCrossEntropyLoss', 'logits': True, 'negative_ratio': 0.7})
    ours = OnnxRuntime(build(unit, ['onnx'])['onnx'])
    x = np.linspace(-3, 3, 30)
    losses = np.log1p(np.exp(np.where(np.arange(30) < 10, -x, x)))
    inputs = torch.tensor(x, dtype=torch.float32), (torch.arange(30) < 10).float()
    loss = ours({name: t.view(2, 1, 3, 5) for name, t in zip(('pred', 'gt'), inputs, strict=True)})['loss']
    np.testing.assert_allclose(loss, (losses[:10].sum() + losses[-7:].sum()) / 17, rtol=1e-6)


def test_what_onnxruntime_1_16_cannot_run_is_not_in_files(exported):
    """It lacks the cosine of float64, and crashes when it fuses 1 / x with a product in float64."""
    rotated = onnx.load_from_string(exported('RotatedIoULoss', grad=True)['onnx']).graph
    assert 'Cos' not in {node.op_type for node in rotated.node}
    graph = onnx.load_from_string(exported('GANLoss', grad=True, call='generator')['onnx']).graph
    ones = {i.name for i in graph.initializer if i.data_type == TensorProto.DOUBLE and numpy_helper.to_array(i) == 1.0}
    assert not [node for node in graph.node if node.op_type == 'Div' and node.input[0] in ones]
    assert 'Reciprocal' in {node.op_type for node in graph.node}


def test_what_onnxruntime_1_16_computes_wrongly_is_not_in_files(exported):
    """Each was found by `make test-onnxruntime` as a wrong number, an error or a crash."""
    graph = onnx.load_from_string(exported('CTCLoss', grad=True)['onnx']).graph
    scans = [node for node in graph.node if node.op_type == 'Scan']
    used = {name for node in graph.node for name in node.input} | {o.name for o in graph.output}
    assert scans
    assert not [name for node in scans for name in node.output if name not in used], 'a result of Scan without a user'
    for body in (graph, *(a.g for node in scans for a in node.attribute if a.HasField('g'))):
        raised = [node.output[0] for node in body.node if node.op_type == 'Exp']
        users = [node.op_type for node in body.node if set(raised) & set(node.input)]
        assert users == ['Where'] * len(raised), 'exp of float64 must be 0 below -745'

    graph = onnx.load_from_string(exported('KeypointOHKMMSELoss', grad=True)['onnx']).graph
    made_by = {name: node.op_type for node in graph.node for name in node.output}
    assert [made_by[node.input[0]] for node in graph.node if node.op_type == 'TopK'] == ['Concat'], 'no rows to sort'
    numbers = {i.name: numpy_helper.to_array(i) for i in graph.initializer}
    sums = [node for node in graph.node if node.op_type == 'ReduceSum']
    assert all((numbers[node.input[1]] >= 0).all() for node in sums if len(node.input) > 1)
    assert 'Concat' in {made_by[node.input[0]] for node in sums if len(node.input) == 1}, 'a sum over the batch'

    graph = onnx.load_from_string(exported('RotatedIoULoss', grad=True)['onnx']).graph
    doubles = {v.name for v in graph.value_info if v.type.tensor_type.elem_type == TensorProto.DOUBLE}
    maxima = [node for node in graph.node if node.op_type in ('Max', 'Min') and node.input[0] in doubles]
    guarded = {node.input[0] for node in graph.node if node.op_type == 'IsNaN'}
    assert maxima
    assert all(node.input[1] in guarded for node in maxima)


def test_the_versions_replayed_are_those_promised():
    """`make test-onnxruntime` tests the versions in lossreg/formats.py."""
    command = next(x for x in Path('Makefile').read_text().splitlines() if 'onnxruntime_version.sh' in x)
    assert {OLDEST_ONNXRUNTIME[18], OLDEST_ONNXRUNTIME_EMPTY_BATCH[18]} <= set(command.split())


def test_small_additions_are_dropped(unit_of):
    """The exporter's optimiser takes any eps up to 1e-8 for 0. onnx_graph.tidy does without it."""
    run, _ = exported_by_torch(lambda x: torch.log(x + 1e-8), torch.zeros(2))
    assert run(floats(0.0, 0.0))[0][0] == -INF, fixed('small additions', 'onnx_graph.tidy')
    unit = unit_of({'type': 'PoissonNLLLoss', 'log_input': False, 'reduction': 'none'})
    ours = OnnxRuntime(build(unit, ['onnx'])['onnx'])
    loss = ours({'input': torch.zeros(2, 3), 'target': torch.ones(2, 3)})['loss']
    np.testing.assert_allclose(loss, -np.log(1e-8), rtol=1e-6)


def test_python_max_of_a_size():
    """max(x.numel(), 1), which guards an empty mean in Python, does not survive the export; average_over does."""
    examples = torch.zeros(3)
    run, _ = exported_by_torch(lambda x: x.sum() / max(x.numel(), 1), examples)
    try:
        found = run(floats())[0]
    except onnxruntime.capi.onnxruntime_pybind11_state.Fail:
        found = NAN  # an error is no fix either
    assert found != 0.0, fixed('max() of a size', 'the ban on it in losses')
    ours, _ = exported_by_torch(lambda x: average_over(x.sum(), x.numel()), examples)
    assert ours(floats())[0] == 0.0
    assert ours(floats(1, 2, 3, 6))[0] == 3.0


# ONNX Runtime's kernels


def test_sigmoid_flushes_to_zero():
    """Sigmoid in float32 is 0 at -18 and below, instead of 1.5e-8. Losses use exp(-softplus(x)) or tolerate it."""
    assert run_node('Sigmoid', floats(-18.0, -20.0)).tolist() == [0.0, 0.0], fixed('Sigmoid', 'focal loss')
    assert run_node('Softplus', floats(-18.0))[0] == pytest.approx(1.523e-8, rel=1e-3)
    assert run_node('Softplus', floats(500.0, -500.0)).tolist() == [500.0, 0.0]


def test_clip_cuts_infinity(unit_of):
    """Without an upper bound, Clip uses float32's largest number. onnx_graph.fix_open_clips adds one."""
    clipped = run_node('Clip', floats(INF, -1.0), np.array(0.0, np.float32))
    assert clipped.tolist() == [np.finfo(np.float32).max, 0.0], fixed('Clip', 'fix_open_clips')
    ours = OnnxRuntime(build(unit_of('HingeLoss'), ['onnx'])['onnx'])
    assert ours({'input': torch.full((2,), -INF), 'target': torch.ones(2)})['loss'] == INF


def test_mean_of_nothing_is_zero():
    """ReduceMean of an empty tensor is 0, but NaN in torch and the ONNX reference. So losses divide by a count."""
    assert run_node('ReduceMean', np.zeros((0, 3), np.float32), keepdims=0) == 0.0, fixed('ReduceMean', 'average')


def test_reduction_of_an_empty_tensor_keeps_its_shape():
    """ReduceSum of (0, 5, 7) along axis -1 must be (0, 5). onnx_graph.fix_empty_reductions makes axes non-negative."""
    axes = np.array([-1], np.int64)
    shape = run_node('ReduceSum', np.zeros((0, 5, 7), np.float32), axes, keepdims=0).shape
    assert shape == (0, 5, 7), fixed('reductions of empty tensors', 'fix_empty_reductions')


def test_any_of_nothing_is_false():
    """The exporter writes `any` as a maximum of int64, which is the lowest number, and so True, if empty. We count."""
    highest = run_node('ReduceMax', np.zeros(0, np.int64), output=TensorProto.INT64)
    assert highest < 0, fixed('any() of nothing', 'the translations of any and all')

    class Counts(nn.Module):
        def forward(self, x):
            mask = x > 0
            found = mask.all() + 2 * mask.any() + 4 * mask.all((0, 1)) + 8 * mask.any((0, 1))
            return x.sum() + found + 16 * mask.all(0).sum() + 64 * mask.any(1, keepdim=True).sum()

    examples = [{'x': torch.tensor(rows).reshape(-1, 2)} for rows in ([1.0, 2.0, -1.0, 3.0, 1.0, 1.0], [], [1.0, 1.0])]
    assert_exportable(Counts(), *examples, formats=['onnx'])


def test_our_reductions_of_empty_tensors(exported):
    ours = OnnxRuntime(exported('KLDiscretLoss', grad=True)['onnx'])
    empty = {name: torch.zeros(0, 5, 7) for name in ('output_x', 'output_y', 'target_x', 'target_y')}
    outputs = ours({**empty, 'target_weight': torch.zeros(0, 5)})
    assert outputs['loss'] == 0.0
    assert outputs['grad_output_x'].shape == (0, 5, 7)


def test_label_minus_one_wraps(exported):
    """GatherElements reads the last class for label -1. Our loss is NaN, and its gradient NaN in that row only."""
    scores = floats(1, 2, 3)[None]
    found = run_node('GatherElements', scores, np.array([[-1]]), axis=1)
    assert found.tolist() == [[3.0]], fixed('negative indices', 'nothing: ONNX allows them')
    ours = OnnxRuntime(exported('CrossEntropyLoss', grad=True, call='labels')['onnx'])
    outputs = ours({'cls_score': torch.zeros(2, 3), 'label': torch.tensor([-1, 0])})
    assert np.isnan(outputs['loss'])
    assert np.isnan(outputs['grad_cls_score']).all(1).tolist() == [True, False]


def test_reduce_max_drops_nan():
    """ReduceMax([1, NaN]) is 1. So no loss subtracts a maximum itself; log_softmax keeps the NaN."""
    assert run_node('ReduceMax', floats(1.0, NAN), keepdims=0) == 1.0, fixed('NaN in ReduceMax', 'the ban on amax')
    assert np.isnan(run_node('LogSoftmax', floats(1.0, NAN)[None])).all()


def test_size_one_is_broadcast(exported):
    """Inputs with the same dimension name are not compared. onnx_graph.guard_shapes compares them."""
    ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ['N']) for n in ('a', 'b', 'c')]
    graph = helper.make_graph([helper.make_node('Sub', ['a', 'b'], ['c'])], 'sub', ends[:2], ends[2:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid('', 18)], ir_version=8)
    found = runner(model, ['a', 'b'])(floats(1, 2, 3), floats(1))[0]
    assert found.tolist() == [0.0, 1.0, 2.0], fixed('dimension names', 'guard_shapes')
    ours = OnnxRuntime(exported('CrossEntropyLoss', grad=True, call='labels')['onnx'])
    outputs = ours({'cls_score': torch.ones(3, 2), 'label': torch.tensor([1])})
    assert all(np.isnan(value).all() for value in outputs.values())


def test_one_long_sum_is_inexact():
    """A sum of 8 million equal numbers is off by more than 1e-4; summed by dimension, it is exact to 1e-6."""
    ones = np.full((2048, 4096), 0.1, np.float32)
    want = ones.sum(dtype=np.float64)
    wrong = abs(run_node('ReduceSum', ones, keepdims=0) / want - 1)
    assert wrong > 1e-5, fixed('long sums', 'total')
    rows = run_node('ReduceSum', ones, np.array([1]), keepdims=0)
    assert run_node('ReduceSum', rows, keepdims=0) == pytest.approx(want, rel=2e-6)
    assert total(torch.from_numpy(ones)).item() == pytest.approx(want, rel=2e-6)


def test_silent_fallback_to_the_cpu():
    """Without CUDA libraries, a session for CUDA only runs on the CPU, though CUDA is listed as available."""
    if 'CUDAExecutionProvider' not in onnxruntime.get_available_providers():
        pytest.skip('this onnxruntime was built without CUDA')
    ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ['N']) for n in ('x', 'y')]
    graph = helper.make_graph([helper.make_node('Neg', ['x'], ['y'])], 'neg', ends[:1], ends[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid('', 18)], ir_version=8).SerializeToString()
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(model, options, providers=['CUDAExecutionProvider'])
    if session.get_providers()[0] == 'CUDAExecutionProvider':
        pytest.skip('CUDA works here')
    assert session.get_providers() == ['CPUExecutionProvider'], fixed('the fallback', 'the check in OnnxRuntime')


# torch itself


def test_added_nan_leaves_the_gradient_finite():
    """``loss + where(bad, nan, 0)`` makes only the loss NaN, not its gradient. poison multiplies."""
    legal = torch.tensor([False, True])
    x = torch.ones(2, requires_grad=True)
    (added,) = torch.autograd.grad((x * x + torch.where(legal, 0.0, NAN)).sum(), x)
    assert added.tolist() == [2.0, 2.0], fixed('the gradient of a sum', 'poison')
    (multiplied,) = torch.autograd.grad(poison(x * x, legal).sum(), x)
    assert multiplied.isnan().tolist() == [True, False]


def test_scripted_matmul_follows_autocast():
    """A script cannot switch autocast off; a product in float64 is immune."""
    scripted = torch.jit.script(Product())
    x = torch.full((2, 3), 1.001)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        lost, kept = scripted(x), scripted(x.double())
    right = Product()(x.double())
    assert not torch.allclose(lost.double(), right, rtol=1e-4), fixed('autocast in scripts', 'ops.products.matmul')
    torch.testing.assert_close(kept, right)


def test_one_backward_pass_in_autocast_rounds_all_later_gradients():
    """TorchScript compiles its derivative of ``@`` once, with the region's casts; our matmul avoids ``@``."""
    scripted = torch.jit.script(Product())
    x = torch.full((2, 3), 1.001, requires_grad=True)

    def gradient(entered):
        loss = scripted(x).sum()
        with torch.autocast('cpu', dtype=torch.bfloat16, enabled=entered):
            return torch.autograd.grad(loss, x)[0]

    right, _, wrong = gradient(False), gradient(True), gradient(False)
    assert not torch.equal(wrong, right), fixed('derivatives in scripts', 'ops.products.matmul')


class Product(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x * 1.001
        return (x @ x.t()) * 2.0


def test_exporter_notes_source_paths():
    """Node metadata holds the path of the module's file. onnx_graph.strip removes it (see test_artefacts.py)."""
    _, model = exported_by_torch(lambda x: x + 1, torch.zeros(2))
    assert modules.__file__.encode() in model.SerializeToString(), fixed('stack traces in files', 'onnx_graph.strip')
