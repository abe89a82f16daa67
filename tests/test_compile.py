"""``lossreg check --backend compile``: values and gradients under torch.compile, in one graph for all sizes."""

import pytest
import torch

from lossreg.__main__ import main
from lossreg.checks import Status, check_unit
from lossreg.formats import BACKENDS, DEVICE_BACKENDS
from lossreg.registry import load_losses
from lossreg.request import Request, variants_of
from lossreg.spec import Call, Input, LossSpec, Role


def assert_all_pass(rows):
    assert rows[-1].check == 'no more graphs'
    assert {row.grad for row in rows} == {True}
    assert not [row for row in rows if row.status is not Status.PASS]


@pytest.mark.parametrize(
    ('name', 'call', 'optional'),
    [
        ('CTCLoss', 'sample', ()),
        ('HuasdorffDisstanceLoss', 'pixels', ('avg_factor',)),
    ],
)
def test_a_loss_compiles(unit_of, name, call, optional):
    """The two losses with scans: over frames, and over the rows of an image."""
    assert_all_pass(list(check_unit(unit_of(name, call=call, optional=optional), ('compile',))))


@pytest.mark.exhaustive
@pytest.mark.parametrize('name', load_losses())
def test_every_loss_compiles(name):
    for unit in variants_of(name)[0].units():
        assert_all_pass(list(check_unit(unit, ('compile',))))


def test_a_batch_of_sequences_compiles_without_frames_too(unit_of):
    """torch's scan compares strides, even those of empty dimensions."""
    loss = unit_of('CTCLoss').loss
    torch._dynamo.reset()
    compiled = torch.compile(loss, fullgraph=True, dynamic=True, backend='aot_eager')
    for frames, batch in ((5, 3), (7, 0)):
        log_p = torch.randn(frames, batch, 4).log_softmax(2).requires_grad_()
        others = torch.ones(batch, 2, dtype=torch.int64), torch.full((batch,), frames), torch.full((batch,), 2)
        ours, theirs = compiled(log_p, *others), torch.nn.CTCLoss()(log_p, *others) if batch else log_p.sum()
        torch.testing.assert_close(ours, theirs)
        found, expected = (torch.autograd.grad(value, log_p)[0] for value in (ours, theirs))
        torch.testing.assert_close(found, expected)
    torch._dynamo.reset()


# Planted faults


class Distance(torch.nn.Module):
    def forward(self, pred, target):
        if pred.shape != target.shape:
            raise ValueError('pred and target')
        return (pred - target).abs().sum()


class Breaks(Distance):
    def forward(self, pred, target):
        torch._dynamo.graph_break()
        return super().forward(pred, target)


class OtherNumbers(Distance):
    def forward(self, pred, target):
        return super().forward(pred, target) * (2 if torch.compiler.is_compiling() else 1)


class OtherGradient(Distance):
    def forward(self, pred, target):
        loss = super().forward(pred, target)
        return 2 * loss.detach() - loss if torch.compiler.is_compiling() else loss


class GraphForEverySize(Distance):
    def forward(self, pred, target):
        return super().forward(pred, target) + sum(pred[n].sum() * 0 for n in range(pred.size(0)))


FAULTS = {
    'none': (Distance, set()),
    'graph break': (Breaks, {'ordinary', 'no more graphs'}),
    'other numbers': (OtherNumbers, {'ordinary', 'extreme 1'}),
    'other gradient': (OtherGradient, {'ordinary', 'extreme 1'}),
    'a graph for every size': (GraphForEverySize, {'no more graphs'}),
}


@pytest.mark.parametrize(('faulty', 'found_by'), FAULTS.values(), ids=FAULTS)
def test_a_fault_is_found(faulty, found_by):
    inputs = Input('pred', Role.FEATURES, 'N D', differentiable=True), Input('target', Role.FEATURES, 'N D')
    faulty.spec = LossSpec((), (Call('pairs', inputs),), {'default': {}}, ())
    request = Request(faulty(), {'type': faulty}, 'planted')
    rows = list(check_unit(next(request.units()), ('compile',)))
    failed = {row.check for row in rows if row.status is Status.FAIL}
    assert failed == set() if not found_by else failed >= found_by


# The command line


def test_it_is_asked_for_by_name(monkeypatch, capsys):
    for name in ('compile', 'compile-inductor'):
        assert name in BACKENDS
        assert not any(name in backends for backends in DEVICE_BACKENDS.values())
    seen = []
    monkeypatch.setattr('lossreg.commands.tasks.check_unit', lambda unit, backends, *how, **more: seen.append(backends))
    main(['check', 'TorchL1Loss', '--backend', 'compile-inductor', '--backend', 'eager'])
    assert set(seen) == {('eager', 'compile-inductor')}
