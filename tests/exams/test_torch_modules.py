"""The calls with which torch tests its own loss modules (its ModuleInfo records), made with our classes.

The installed package has them in ``torch.testing._internal.common_modules``, which needs expecttest: 552 calls of 19
classes, in float32 and float64. Values and gradients must be torch's, eager and scripted, unless a spec declares a
difference. Scripted modules get lists where torch's calls of CTCLoss give tuples, which TorchScript does not accept.
"""

import pytest
import torch
from torch.testing._internal.common_modules import FunctionInput, module_db

from lossreg.compare import compare
from lossreg.registry import load_losses
from lossreg.spec import Tolerance

EXACT = Tolerance(rtol=1e-11, atol=1e-12)
NOT_OURS = {'LinearCrossEntropyLoss': 'LinearCrossEntropyLoss, which holds the layer before the loss'}
IGNORED = 'everything ignored, or no sample at all, gives 0; torch gives NaN'
STAND_INS = {
    host.name: (cls, host.defaults)
    for cls in load_losses().values()
    for host in cls.spec.stands_in_for
    if host.name.startswith('torch.')
}
MODULES = [info for info in module_db if info.module_cls.__name__.endswith('Loss')]


def calls(info, dtype):
    """The name, constructor arguments and call arguments of every call of one class."""
    torch.manual_seed(0)
    for at, made in enumerate(info.module_inputs_func(info, 'cpu', dtype, requires_grad=True, training=True)):
        name = f'{info.module_cls.__name__} {str(dtype).removeprefix("torch.")} {at} {made.desc}'.strip()
        yield name, made.constructor_input, made.forward_input


def results(form, loss, call, dtype):
    """The result of a loss, eager or scripted, in one precision, and its gradients for arguments that require one."""
    cast = FunctionInput(
        *(_cast(x, dtype) for x in call.args), **{key: _cast(x, dtype) for key, x in call.kwargs.items()}
    )
    given = (*cast.args, *cast.kwargs.values())
    leaves = [x for x in given if isinstance(x, torch.Tensor) and x.requires_grad]
    value = form(loss, cast)
    gradients = torch.autograd.grad(value.sum(), leaves)
    return {'loss': value.detach(), **{f'gradient {i}': gradient for i, gradient in enumerate(gradients)}}


def _cast(x, dtype):
    """A copy of an argument, a leaf if it requires a gradient."""
    if not isinstance(x, torch.Tensor):
        return x
    cast = x.detach().clone().to(dtype) if x.is_floating_point() else x.clone()
    return cast.requires_grad_(x.requires_grad)


def eager(loss, call):
    return loss(*call.args, **call.kwargs)


def scripted(loss, call):
    lists = [list(x) if isinstance(x, tuple) else x for x in call.args]
    return torch.jit.script(loss)(*lists, **call.kwargs)


@pytest.mark.parametrize('form', [eager, scripted], ids=lambda form: form.__name__)
@pytest.mark.filterwarnings("ignore:reduction. 'mean' divides:UserWarning")  # torch warns about its own KLDivLoss
def test_torch_module_calls(form, score):
    for info in MODULES:
        for dtype in (torch.float32, torch.float64):
            take(score, info, dtype, form)
    score.settle(at_least=550)


def take(score, info, dtype, form):
    """Runs all calls of one class in one precision."""
    host = info.module_cls.__name__
    if host in NOT_OURS:
        score.leave_out(host, NOT_OURS[host])
        return
    for name, built, call in calls(info, dtype):
        cls, defaults = STAND_INS[f'torch.{host}']
        # in float32, torch's gradient of CTC is off by 1e-4
        trusted = torch.float64 if host == 'CTCLoss' else dtype
        theirs = results(eager, info.module_cls(*built.args, **built.kwargs).to(trusted), call, trusted)
        ours = results(form, cls(*built.args, **{**defaults, **built.kwargs}).to(dtype), call, dtype)
        if theirs['loss'].isnan().any() and IGNORED in [d.what for d in cls.spec.differences]:
            assert not any(x.any() for x in ours.values()), f'{name}: {ours}'
            score.leave_out(name, f'declared, {IGNORED}')
            continue
        with score.case(name):
            agreement = compare(ours, theirs, EXACT if dtype is torch.float64 else cls.spec.tolerance)
            assert agreement, agreement.detail
