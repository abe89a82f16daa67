"""Distillation losses on inputs that their specs do not draw."""

import math
import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from gradients import with_gradient

from lossreg.exporters import build
from lossreg.formats import SUFFIXES
from lossreg.registry import build_loss
from lossreg.request import Request
from lossreg.runtimes import Eager, load
from lossreg.samples import draw
from lossreg.unit import OTHER_SIZES


def rows(*numbers):
    return torch.tensor(numbers, dtype=torch.float64)


DETACHED = {
    'KLDivergence': 2, 'DISTLoss': 2, 'RazorCrossEntropyLoss': 2, 'NKDLoss': 3, 'LogitStandardizationLoss': 2,
    'SimilarityPreservingLoss': 2, 'PKTLoss': 2,
}  # fmt: skip


@pytest.mark.parametrize('name', DETACHED)
def test_teacher_gets_no_gradient(name):
    student, teacher = torch.randn(2, 4, requires_grad=True), torch.randn(2, 4, requires_grad=True)
    build_loss(name)(*(student, teacher, torch.tensor([0, 3]))[: DETACHED[name]]).backward()
    assert student.grad is not None
    assert teacher.grad is None


# By hand


def test_divergence_by_hand():
    # s = (1/2, 1/2), t = (3/4, 1/4)
    student, teacher = rows([0.0, 0.0]), rows([math.log(3), 0.0])
    expected = 0.75 * math.log(1.5) + 0.25 * math.log(0.5)
    assert build_loss('KLDivergence')(student, teacher).item() == pytest.approx(expected)
    # the same as a channel with two places
    maps = student.view(1, 1, 1, 2), teacher.view(1, 1, 1, 2)
    assert build_loss('ChannelWiseDivergence')(*maps).item() == pytest.approx(expected)
    # with temperature 2 and twice the teacher's logits
    hot = build_loss({'type': 'KLDivergence', 'tau': 2.0})(student, 2.0 * teacher)
    assert hot.item() == pytest.approx(4.0 * expected)


def test_nkd_by_hand():
    # at the label -t_y log s_y = 1/2 log 3; among the others both are uniform: log 2
    student, teacher = rows([0.0, 0.0, 0.0]), rows([math.log(2), 0.0, 0.0])
    loss = build_loss({'type': 'NKDLoss', 'gamma': 1.5})(student, teacher, torch.tensor([0]))
    assert loss.item() == pytest.approx(0.5 * math.log(3) + 1.5 * math.log(2))


def test_dkd_is_the_divergence_where_its_weights_are():
    """KL = TCKD + (1 - t_y) NCKD, the identity from which the paper starts."""
    torch.manual_seed(0)
    student, teacher, label = torch.randn(1, 6).double(), torch.randn(1, 6).double(), torch.tensor([2])
    beta = 1.0 - teacher.softmax(1)[0, 2].item()
    whole = build_loss('KLDivergence')(student, teacher)
    assert build_loss({'type': 'DKDLoss', 'beta': beta})(student, teacher, label).item() == pytest.approx(whole.item())


@pytest.mark.parametrize('name', ['DISTLoss', 'PKDLoss', 'LogitStandardizationLoss', 'SimilarityPreservingLoss'])
def test_only_relations_count(name):
    """Scaling and shifting the teacher (in DIST its probabilities; in SP only scaling) changes nothing."""
    torch.manual_seed(0)
    x = torch.randn(4, 5, 3, 2).double() if name == 'PKDLoss' else torch.randn(4, 5).double()
    if name == 'DISTLoss':
        probabilities = x.softmax(1)
        mixed = torch.log(0.5 * probabilities + 0.1)
        assert build_loss(name)(x, mixed).item() == pytest.approx(0.0, abs=1e-5)
    else:
        shift = 0.0 if name == 'SimilarityPreservingLoss' else 2.0
        assert build_loss(name)(x, 3.0 * x + shift).item() == pytest.approx(0.0, abs=1e-5)
    assert build_loss(name)(x, x.flip(0)).item() > 0.01


# Degenerate inputs


@pytest.mark.parametrize('value', [0.1, 100.3, 1e4])
def test_constant_maps_are_standardised_to_zero(value):
    """A mean in float32 is off by its last bit; dividing that by the standard deviation would give 1."""
    torch.manual_seed(0)
    constant, teacher = torch.full((3, 2, 7, 5), value), torch.randn(3, 2, 7, 5)
    zero = build_loss('PKDLoss')(torch.zeros_like(teacher), teacher)
    torch.testing.assert_close(build_loss('PKDLoss')(constant, teacher), zero)
    assert with_gradient(build_loss('PKDLoss'), constant, teacher)[1].isfinite().all()
    logits = torch.full((2, 9), value), torch.randn(2, 9)
    even = build_loss('LogitStandardizationLoss')(torch.zeros(2, 9), logits[1])
    torch.testing.assert_close(build_loss('LogitStandardizationLoss')(*logits), even)


@pytest.mark.parametrize(
    ('name', 'shape'),
    [
        ('ATLoss', (2, 3, 4, 4)), ('PKDLoss', (2, 3, 4, 4)), ('FTLoss', (3, 4)), ('RazorL2Loss', (3, 4)),
        ('DistanceWiseRKD', (3, 4)), ('AngleWiseRKD', (3, 4)), ('SimilarityPreservingLoss', (3, 4)),
        ('PKTLoss', (3, 4)), ('DISTLoss', (3, 4)),
    ],
)  # fmt: skip
def test_zeros_and_duplicates_have_finite_gradients(name, shape):
    torch.manual_seed(0)
    some = torch.randn(shape)
    zeros, alike = torch.zeros(shape), some[:1].expand(shape).clone()
    for student, teacher in ((zeros, some), (alike, some), (some, zeros), (some, alike), (some, some), (zeros, zeros)):
        assert with_gradient(build_loss(name), student, teacher)[1].isfinite().all()


@pytest.mark.parametrize('options', [{}, {'normalize': False, 'dist': True}, {'dist': True}])
def test_equal_features_have_no_distance_and_no_gradient(options):
    loss, x = build_loss({'type': 'RazorL2Loss', **options}), torch.randn(3, 4)
    assert loss(x, x).item() == 0.0
    assert not with_gradient(loss, x, x)[1].any()


def test_features_of_zeros_have_no_direction_and_no_gradient():
    """As RazorL2Loss says of samples that it scales to one length."""
    student, teacher = rows([0.0, 0.0], [3.0, 4.0]), rows([1.0, 0.0], [0.0, 5.0])
    gradient = with_gradient(build_loss('RazorL2Loss'), student, teacher)[1]
    assert gradient[0].tolist() == [0.0, 0.0]
    assert gradient[1].any()


def test_weights_of_one_keypoint_come_in_three_shapes():
    x, t, weight = torch.randn(3, 1, 4), torch.randn(3, 1, 4), torch.tensor([0.5, 0.0, 2.0])
    loss = build_loss({'type': 'KDLoss', 'name': 'kd', 'use_this': True})
    found = [loss((x, x), (t, t), 1.0, weight.view(shape)) for shape in ((3,), (3, 1), (3, 1, 1))]
    assert found[0] == found[1] == found[2] != loss((x, x), (t, t), 1.0)


# Sizes


@pytest.mark.parametrize('resize_stu', [True, False])
def test_an_artefact_for_two_sizes_takes_equal_ones(resize_stu):
    """It always interpolates; for equal sizes, that changes nothing."""
    unit, *_ = Request.of({'type': 'PKDLoss', 'resize_stu': resize_stu}, call_name='sizes').units()
    unit = replace(unit, grad=True)
    sizes = {**unit.sizes(OTHER_SIZES), 'I': 9, 'J': 4, 'H': 9, 'W': 4}
    inputs = draw(unit, sizes=sizes)
    want = Eager(unit)(inputs)
    for format in ('onnx', 'torchscript'):
        got = load(build(unit, [format])[format], SUFFIXES[format])(inputs)
        for name, value in want.items():
            np.testing.assert_allclose(got[name], value, rtol=1e-4, atol=1e-6)


# Several processes

GATHER = """
import sys
import torch
from lossreg.registry import build_loss

rank = int(sys.argv[1])
torch.distributed.init_process_group('gloo', init_method=f'file://{sys.argv[2]}', rank=rank, world_size=2)
torch.manual_seed(0)
whole = torch.randn(6, 4, requires_grad=True)
expected = build_loss(dict(type='InformationEntropyLoss', gather=False))(whole)
expected.backward()
mine = whole.detach()[3 * rank :][:3].requires_grad_()
loss = build_loss('InformationEntropyLoss')(mine)
loss.backward()
torch.testing.assert_close(loss, expected)
# what is differentiated is the sum of both processes' losses
torch.testing.assert_close(mine.grad, 2 * whole.grad[3 * rank :][:3])
"""


def test_information_entropy_is_that_of_all_processes(tmp_path):
    processes = [
        subprocess.Popen(
            [sys.executable, '-W', 'ignore', '-c', GATHER, str(rank), str(tmp_path / 'rendezvous')],
            env={**os.environ, 'PYTHONPATH': os.pathsep.join(sys.path)},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    for process in processes:
        _, errors = process.communicate(timeout=300)
        assert process.returncode == 0, errors
