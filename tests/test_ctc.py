"""Connectionist temporal classification against torch's kernel in float64, and by hand."""

import math

import pytest
import torch
from gradients import with_gradient
from torch.nn import functional as F

from lossreg.exporters import build, verify
from lossreg.losses.sequence.ctc_loss import CTCLoss, ctc_loss
from lossreg.ops import lattice
from lossreg.request import Request

SIZES = [(7, 3, 4, 2), (20, 2, 9, 6), (1, 4, 3, 1), (40, 1, 5, 15)]


def sequences(frames, batch, classes, labels, seed=0, dtype=torch.float64):
    """Log-probabilities, targets and lengths. Rows may have no alignment; labels beyond the length are arbitrary."""
    random = torch.Generator().manual_seed(seed)
    log_probs = (3 * torch.randn(frames, batch, classes, generator=random, dtype=dtype)).log_softmax(-1)
    targets = torch.randint(1, classes, (batch, labels), generator=random)
    input_lengths = torch.randint(1, frames + 1, (batch,), generator=random)
    target_lengths = torch.randint(0, labels + 1, (batch,), generator=random)
    padded = torch.arange(labels) >= target_lengths.unsqueeze(1)
    return log_probs, torch.where(padded, -7, targets), input_lengths, target_lengths


@pytest.mark.parametrize('size', SIZES)
@pytest.mark.parametrize('reduction', ['none', 'mean', 'sum'])
@pytest.mark.parametrize('zero_infinity', [False, True])
def test_eager_is_torch(size, reduction, zero_infinity):
    log_probs, targets, *lengths = sequences(*size)
    legal = targets.clamp(min=0)
    ours = with_gradient(CTCLoss(0, reduction, zero_infinity), log_probs, targets, *lengths)
    theirs = with_gradient(torch.nn.CTCLoss(0, reduction, zero_infinity), log_probs, legal, *lengths)
    torch.testing.assert_close(ours, theirs, equal_nan=True)


@pytest.mark.parametrize('size', SIZES)
@pytest.mark.parametrize('zero_infinity', [False, True])
def test_recursion_is_torch(size, zero_infinity):
    """TorchScript runs the recursion, with its gradient in closed form."""
    log_probs, targets, *lengths = sequences(*size, seed=1)
    scripted = torch.jit.script(CTCLoss(0, 'none', zero_infinity))
    ours = with_gradient(scripted, log_probs, targets, *lengths)
    theirs = with_gradient(torch.nn.CTCLoss(0, 'none', zero_infinity), log_probs, targets.clamp(min=0), *lengths)
    torch.testing.assert_close(ours, theirs, equal_nan=True)


def test_eager_without_torchs_kernel(monkeypatch):
    """The kernel of torch 2.1 is wrong for samples without frames."""
    log_probs, targets, input_lengths, target_lengths = sequences(7, 4, 5, 2, seed=2)
    call = log_probs, targets, input_lengths * torch.tensor([0, 1, 1, 0]), target_lengths * torch.tensor([0, 1, 1, 1])
    theirs = with_gradient(torch.nn.CTCLoss(0, 'none'), call[0], targets.clamp(min=0), *call[2:])
    monkeypatch.setattr(lattice, 'KERNEL_IS_RIGHT', False)
    torch.testing.assert_close(with_gradient(CTCLoss(0, 'none'), *call), theirs, equal_nan=True)


def test_nan_of_a_class_that_no_alignment_reaches():
    log_probs, targets, *lengths = sequences(7, 3, 5, 2)
    log_probs[:, :, 4] = torch.nan
    call = log_probs, targets.clamp(max=3), *lengths
    exact = torch.nn.CTCLoss(0, 'none')(call[0], call[1].clamp(min=0), *lengths)
    assert not exact.isnan().any()
    for loss in (CTCLoss(0, 'none'), torch.jit.script(CTCLoss(0, 'none'))):
        value, gradient = with_gradient(loss, *call)
        torch.testing.assert_close(value, exact)
        assert not gradient[:, :, :4].isnan().any()


def test_long_sequences_keep_their_precision_in_float32():
    log_probs, targets, *lengths = sequences(300, 2, 30, 40, dtype=torch.float32)
    exact = with_gradient(torch.nn.CTCLoss(reduction='none'), log_probs.double(), targets.clamp(min=0), *lengths)
    for loss in (CTCLoss(reduction='none'), torch.jit.script(CTCLoss(reduction='none'))):
        value, gradient = with_gradient(loss, log_probs, targets, *lengths)
        torch.testing.assert_close(value.double(), exact[0], rtol=1e-6, atol=0)
        torch.testing.assert_close(gradient.double(), exact[1], rtol=1e-5, atol=1e-7)


def test_by_hand():
    """Two frames, one label: the alignments "a-", "-a" and "aa", with p(a) = 1/4 and p(-) = 3/4."""
    log_probs = torch.tensor([[[0.75, 0.25]], [[0.75, 0.25]]]).log()
    loss = CTCLoss(reduction='sum')(log_probs, torch.tensor([[1]]), torch.tensor([2]), torch.tensor([1]))
    assert loss.item() == pytest.approx(-math.log(3 / 16 + 3 / 16 + 1 / 16))


def test_labels_behind_one_another():
    log_probs, targets, frames, lengths = sequences(20, 4, 9, 6)
    flat = torch.cat([row[:length] for row, length in zip(targets, lengths, strict=True)])
    for loss in (CTCLoss(), torch.jit.script(CTCLoss())):
        padded = with_gradient(loss, log_probs, targets, frames, lengths)
        torch.testing.assert_close(with_gradient(loss, log_probs, flat, frames, lengths), padded)
    torch.testing.assert_close(padded[0], torch.nn.CTCLoss()(log_probs, flat, frames, lengths))


@pytest.mark.parametrize(
    ('wrong', 'message'),
    [
        ({'targets': torch.tensor([[1, 9]])}, 'targets holds 9, but labels go from 0 to 2'),
        ({'input_lengths': torch.tensor([5])}, 'input_lengths holds 5, but there are 4 frames'),
        ({'target_lengths': torch.tensor([3])}, 'target_lengths holds 3, but there are 2 labels in a row of targets'),
    ],
)
def test_what_torch_reads_beyond_its_memory_is_an_error(wrong, message):
    inputs = {
        'log_probs': torch.zeros(4, 1, 3).log_softmax(-1),
        'targets': torch.tensor([[1, 2]]),
        'input_lengths': torch.tensor([4]),
        'target_lengths': torch.tensor([2]),
    }
    assert ctc_loss(**inputs).isfinite().all()
    with pytest.raises(IndexError, match=message):
        ctc_loss(**{**inputs, **wrong})
    assert torch.jit.script(ctc_loss)(**{**inputs, **wrong}).isnan().all()


def test_frames_that_do_not_count_may_be_anything():
    log_probs, targets, *lengths = sequences(6, 2, 4, 1)
    lengths[0] = torch.tensor([3, 6])
    broken = log_probs.clone()
    broken[3:, 0] = math.nan
    for loss in (CTCLoss(), torch.jit.script(CTCLoss())):
        expected = with_gradient(loss, log_probs, targets, *lengths)
        torch.testing.assert_close(with_gradient(loss, broken, targets, *lengths), expected)
        assert not expected[1][3:, 0].any()


def test_one_sample():
    log_probs, targets, frames, lengths = sequences(8, 1, 4, 3)
    for loss in (CTCLoss(reduction='none'), torch.jit.script(CTCLoss(reduction='none'))):
        alone = loss(log_probs[:, 0], targets[0], frames[0], lengths[0])
        assert alone.shape == ()
        torch.testing.assert_close(alone, F.ctc_loss(log_probs, targets.clamp(min=0), frames, lengths, reduction='sum'))


def test_scans_after_one_another():
    """torch caches what it compiles for torch.scan, and used to refuse the program of the second loss."""
    for type in ('CTCLoss', 'HuasdorffDisstanceLoss'):
        unit = next(iter(Request.of({'type': type}).units()))
        assert verify(unit, build(unit, ['pt2'])['pt2'], 'pt2')


@pytest.mark.parametrize('form', [tuple, list])
@pytest.mark.parametrize('reduction', ['none', 'mean', 'sum'])
def test_lengths_may_be_lists_and_tuples(form, reduction):
    log_probs, targets, *lengths = sequences(7, 3, 4, 2)
    given = [form(length.tolist()) for length in lengths]
    options = {'reduction': reduction, 'zero_infinity': True}
    loss, host = CTCLoss(**options), torch.nn.CTCLoss(**options)
    expected = with_gradient(host, log_probs, targets.clamp(min=0), *given)
    for others in (given, [given[0], lengths[1]], [lengths[0], given[1]]):
        torch.testing.assert_close(with_gradient(loss, log_probs, targets, *others), expected)
    sample = log_probs[:, 1], targets[1, : int(lengths[1][1])], *([length[1]] for length in given)
    torch.testing.assert_close(with_gradient(loss, *sample), with_gradient(host, *sample))
    if form is list:
        scripted = torch.jit.script(loss)
        torch.testing.assert_close(scripted(log_probs, targets, *given), expected[0])
        torch.testing.assert_close(scripted(log_probs, targets, *lengths), expected[0])


def test_lists_of_lengths_are_checked_like_tensors():
    log_probs, targets, *_ = sequences(7, 2, 4, 2)
    with pytest.raises(IndexError, match='input_lengths holds 8'):
        CTCLoss()(log_probs, targets.clamp(min=0), (8, 7), (2, 2))
    with pytest.raises(ValueError, match='target_lengths must hold integer'):
        CTCLoss()(log_probs, targets.clamp(min=0), (7, 7), (1.5, 2.0))
    with pytest.raises(ValueError, match='input_lengths'):
        CTCLoss()(log_probs, targets.clamp(min=0), (7,), (2,))
    empty = CTCLoss()(torch.zeros(5, 0, 3), torch.zeros(0, 2, dtype=torch.int64), (), [])
    assert float(empty) == 0.0
