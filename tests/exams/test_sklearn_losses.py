"""scikit-learn's literal loss values, some of them computed with mpmath, for raw predictions up to +-1e20.

The installed package has them in ``sklearn/_loss/tests/test_loss.py``: the loss of one sample in float64 and, for most,
its gradient and second derivative. scikit-learn halves some losses, and so does the ``loss_weight`` here. The tolerance
is scikit-learn's own, 1e-15. Scripted losses are tested without second derivatives: see the last test.
"""

import pytest
import torch
import torch.nn.functional as F
from sklearn._loss.tests import test_loss as sklearn_tests

from lossreg.registry import build_loss

CASES = sklearn_tests.test_loss_on_specific_values.pytestmark[0].args[1]
NOT_OURS = {
    'PinballLoss': 'no loss here is that of a quantile other than the median',
    'HalfGammaLoss': 'no loss here is a gamma deviance',
    'HalfTweedieLoss': 'no loss here is a Tweedie deviance',
    'HalfTweedieLossIdentity': 'no loss here is a Tweedie deviance',
}


def floats(prediction, target):
    return prediction, target


def signs(prediction, target):
    """1 for the class, -1 for the other; no target lies between them."""
    return prediction, 2.0 * target - 1.0


def index_or_background(prediction, target):
    """The index of the only class, or of background."""
    return prediction.unsqueeze(1), 1 - target.long()


HARD = (signs, index_or_background)
"""The forms of targets that have no value between 0 and 1."""


def classes(prediction, target):
    return prediction, target.long()


def ours(loss):
    """Our configs for one of scikit-learn's losses, and how each takes prediction and target."""
    name = type(loss).__name__
    if name == 'PinballLoss' and loss.closs.quantile == 0.5:
        return [({'type': 'L1Loss', 'loss_weight': 0.5}, floats)]
    return {
        'HalfSquaredError': [({'type': 'MSELoss', 'loss_weight': 0.5}, floats)],
        'AbsoluteError': [({'type': 'L1Loss'}, floats), ({'type': 'TorchL1Loss'}, floats)],
        'HuberLoss': [({'type': 'HuberLoss', 'delta': getattr(loss.closs, 'delta', None)}, floats)],
        'HalfPoissonLoss': [({'type': 'PoissonNLLLoss'}, floats)],
        'HalfBinomialLoss': [
            ({'type': 'BCEWithLogitsLoss'}, floats),
            ({'type': 'CrossEntropyLoss', 'use_sigmoid': True}, floats),
            ({'type': 'CrossEntropyLoss', 'use_sigmoid': True}, index_or_background),
            ({'type': 'SoftMarginLoss'}, signs),
            ({'type': 'LogisticLoss'}, signs),
        ],
        'HalfMultinomialLoss': [({'type': 'CrossEntropyLoss'}, classes), ({'type': 'TorchCrossEntropyLoss'}, classes)],
    }.get(name, [])


def derivatives(loss, arrange, prediction, target, order):
    """The loss and its derivatives up to ``order`` with respect to the prediction."""
    x = torch.tensor([prediction], dtype=torch.float64, requires_grad=True)
    found = [loss(*arrange(x, torch.tensor([target], dtype=torch.float64))).sum()]
    for left in reversed(range(order)):
        if found[-1].requires_grad:
            found += torch.autograd.grad(found[-1].sum(), x, create_graph=left > 0)
        else:  # the derivative of a linear function is not connected to the graph
            found.append(torch.zeros_like(x))
    return found


@pytest.mark.parametrize(
    ('form', 'order'),
    [pytest.param(lambda loss: loss, 2, id='eager'), pytest.param(torch.jit.script, 1, id='scripted')],
)
def test_sklearn_losses(form, order, score):
    losses = {}
    for loss, target, prediction, *expected in CASES:
        name = f'{sklearn_tests.loss_instance_name(loss)} of {target} and {prediction}'
        if not ours(loss):
            score.leave_out(name, NOT_OURS[type(loss).__name__])
            continue
        with score.case(name):
            for config, arrange in ours(loss):
                if arrange in HARD and target not in (0.0, 1.0):
                    continue
                if str(config) not in losses:
                    losses[str(config)] = form(build_loss(config))
                found = derivatives(losses[str(config)], arrange, prediction, target, order)
                assert_exact(found, expected, f'{config} {arrange.__name__}')
    score.settle(at_least=30)


def assert_exact(found, expected, what):
    for order, (got, want) in enumerate(zip(found, expected, strict=False)):
        if want is not None:
            assert got.flatten().tolist() == pytest.approx([want] * got.numel(), rel=1e-15, abs=1e-15), (
                f'derivative {order} of {what} is {got.tolist()}, expected {want}'
            )


def test_second_derivative_of_scripted_softplus_is_torchs_fault():
    """TorchScript computes the derivative as e^x / (e^x + 1), whose own derivative is NaN where e^x overflows.

    If this fails, a newer torch has fixed it, and the test above can include second derivatives of scripted losses.
    """
    scripted = torch.jit.script(_three_softplus)
    seconds = []
    for loss in (_three_softplus, scripted, scripted):  # the second run of a scripted function is the optimised one
        x = torch.tensor([1e3], dtype=torch.float64, requires_grad=True)
        (first,) = torch.autograd.grad(loss(x).sum(), x, create_graph=True)
        seconds.append(torch.autograd.grad(first.sum(), x)[0].item())
    assert seconds == [0.0, 0.0, pytest.approx(float('nan'), nan_ok=True)]


def _three_softplus(x: torch.Tensor) -> torch.Tensor:
    return 3.0 * F.softplus(2.0 * x)
