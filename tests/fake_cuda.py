"""Runs every loss forward on fake CUDA tensors, without a GPU. Mixing devices or reading a value raises.

``make test-fake-cuda`` runs it with a CUDA build of torch. Every unit runs twice: as it is traced, and as in plain
eager mode, where fake tensors pass for real ones. Names of losses as arguments restrict it to these.
"""

import logging
import sys
from contextlib import contextmanager, nullcontext
from copy import deepcopy
from dataclasses import replace
from unittest import mock

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from lossreg import arith
from lossreg.registry import load_losses
from lossreg.request import variants_of
from lossreg.samples import draw
from lossreg.unit import FlatLoss

NEEDS_DRIVER = {('CTCLoss', 'plain'): "torch's kernel asks for a driver before it asks for shapes"}
"""The losses that cannot run in a mode, and why."""


def fake(tensor, device='cuda'):
    """A tensor of this shape and type on a device, without values."""
    return torch.empty(tensor.shape, dtype=tensor.dtype, device=device)


def move(module, device_of_numbers):
    """Moves parameters and buffers to the device, as ``module.to`` does, except those that hosts keep as plain numbers.

    Hosts turn class weights and the like into tensors on the device of the inputs, even if the module was not moved.
    Ours are non-persistent buffers.
    """
    for part in module.modules():
        for name, parameter in part.named_parameters(recurse=False):
            setattr(part, name, nn.Parameter(fake(parameter), parameter.requires_grad))
        for name, buffer in part.named_buffers(recurse=False):
            is_number = name in part._non_persistent_buffers_set
            setattr(part, name, fake(buffer, device_of_numbers if is_number else 'cuda'))


def holds_numbers(module):
    """Whether a module or a submodule has non-persistent buffers."""
    return any(
        getattr(part, name) is not None for part in module.modules() for name in part._non_persistent_buffers_set
    )


@contextmanager
def taken_for_real():
    """Makes losses take fake tensors for real ones, so that they behave as in plain eager mode."""

    def is_tensor(x):
        return isinstance(x, torch.Tensor)

    ours = [module for name, module in sys.modules.items() if name.startswith('lossreg.')]
    holders = [module for module in ours if vars(module).get('is_eager') is arith.is_eager]
    patches = [mock.patch.object(module, 'is_eager', is_tensor) for module in holders]
    for patch in patches:
        patch.start()
    try:
        yield
    finally:
        for patch in patches:
            patch.stop()


MODES = {'traced': nullcontext, 'plain': taken_for_real}


def problem(unit, device_of_numbers):
    """What is wrong with a unit on the device; '' if nothing is."""
    inputs, unit = draw(unit), replace(unit, loss=deepcopy(unit.loss))
    try:
        with FakeTensorMode():
            move(unit.loss, device_of_numbers)
            outputs = FlatLoss(unit)(*map(fake, inputs.values()))
    except Exception as error:  # losses may raise anything here
        return f'{type(error).__name__}: {error}'.splitlines()[0]
    elsewhere = [name for name, output in zip(unit.results, outputs, strict=True) if output.device.type != 'cuda']
    return f'not on the device: {", ".join(elsewhere)}' if elsewhere else ''


def problems_of(name):
    """Each run of a loss, and what is wrong with it."""
    for request in variants_of(name):
        for unit in request.units() if request.is_callable else ():
            for mode, context in MODES.items():
                for device in ('cuda', 'cpu') if holds_numbers(unit.loss) else ('cuda',):
                    with context():
                        found = problem(unit, device)
                    if reason := NEEDS_DRIVER.get((name, mode)):
                        found = '' if found else f'runs, but is left out because {reason}'
                    yield f'{name} {request.variant} {unit.call.name}, {mode}, numbers on {device}', found


def main():
    torch.set_num_threads(1)
    logging.getLogger('torch').setLevel(logging.CRITICAL)  # it reports exceptions that are caught here
    names = sys.argv[1:] or list(load_losses())
    runs = [run for name in names for run in problems_of(name)]
    wrong = [f'{place}: {found}' for place, found in runs if found]
    print(*wrong, sep='\n')
    print(
        f'torch {torch.__version__}: {len(runs)} runs of {len(names)} losses on fake CUDA tensors, {len(wrong)} wrong'
    )
    print(*(f'left out: {name}, {mode}: {reason}' for (name, mode), reason in NEEDS_DRIVER.items()), sep='\n')
    return 1 if wrong or not runs else 0


if __name__ == '__main__':
    sys.exit(main())
