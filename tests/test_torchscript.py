"""TorchScript archives: the source of ``forward``, and what makes them equal on every machine."""

import io
import zipfile
from dataclasses import replace
from textwrap import dedent

from lossreg.artefact import write_archive
from lossreg.exporters.torchscript import canonical, forward_source, to_torchscript
from lossreg.registry import build_loss
from lossreg.request import Request
from lossreg.samples import draw
from lossreg.unit import with_cotangent


def unit_of(config, optional=(), call=''):
    request = Request.of(config, call_name=call)
    return request.unit(request.calls()[0], optional)


def test_forward_calls_the_loss_with_its_inputs_by_name():
    unit = unit_of({'type': 'MSELoss'}, ['weight', 'avg_factor'])
    assert forward_source(unit) == dedent("""\
        def forward(self, pred: Tensor, target: Tensor, weight: Tensor, avg_factor: Tensor):
            result_loss = self.loss(pred=pred, target=target, weight=weight, avg_factor=float(avg_factor))
            return result_loss
    """)


def test_forward_with_a_gradient_runs_autograd():
    unit = replace(unit_of({'type': 'MarginRankingLoss'}), grad=True)
    names = ', '.join(f'{i.name}: Tensor' for i in unit.inputs)
    first, second = (i.name for i in unit.differentiable)
    given = ', '.join(f'{i.name}={i.name}' for i in unit.inputs)
    assert forward_source(unit) == dedent(f"""\
        def forward(self, {names}):
            {first} = {first}.detach().requires_grad_(True)
            {second} = {second}.detach().requires_grad_(True)
            result_loss = self.loss({given})
            grads = torch.autograd.grad([(result_loss).sum()], [{first}, {second}], allow_unused=True)
            grad_{first} = grads[0]
            if grad_{first} is None:
                grad_{first} = torch.zeros_like({first})
            grad_{second} = grads[1]
            if grad_{second} is None:
                grad_{second} = torch.zeros_like({second})
            return result_loss.detach(), grad_{first}, grad_{second}
    """)


def test_forward_with_a_cotangent_weighs_the_loss():
    unit = replace(unit_of({'type': 'MSELoss', 'reduction': 'none'}), grad=True)
    unit = with_cotangent(unit, draw(unit))
    assert 'torch.autograd.grad([(result_loss * grad_output).sum()], [pred], allow_unused=True)' in forward_source(unit)


# Archives


def archive(*members):
    return write_archive({f'a/{name}': text.encode() for name, text in members})


def members(data):
    with zipfile.ZipFile(io.BytesIO(data)) as found:
        return {name.removeprefix('a/'): found.read(name).decode() for name in found.namelist()}


HEAD = 'class Loss(Module):\n'
PICKLE = 'data.pkl', '__torch__.m.___torch_mangle_7.Loss\n__torch__.m.___torch_mangle_9.Loss\n__torch__.k.Other\n'


def test_an_archive_forgets_sources_and_numbers():
    found = members(canonical(archive(PICKLE, ('code/k.py.debug_pkl', 'paths'), ('.data/serialization_id', '123'))))
    assert found == {
        'data.pkl': '__torch__.m.Loss\n__torch__.m.___torch_mangle_0.Loss\n__torch__.k.Other\n',
        '.data/serialization_id': '0' * 40,
    }


def test_definitions_of_a_module_stand_in_one_file_sorted():
    found = members(
        canonical(
            archive(
                PICKLE,
                ('code/__torch__/m/___torch_mangle_9.py', f'{HEAD}  b : __torch__.m.___torch_mangle_7.Loss\n\n\n'),
                ('code/__torch__/m/___torch_mangle_7.py', f'{HEAD}  a : int\n'),
                ('code/__torch__/k.py', 'def z():\n  pass\ndef a():\n  pass\n'),
            )
        )
    )
    assert {name: text for name, text in found.items() if name.startswith('code')} == {
        'code/__torch__/m/___torch_mangle_0.py': f'{HEAD}  b : __torch__.m.Loss\n',
        'code/__torch__/m.py': f'{HEAD}  a : int\n',
        'code/__torch__/k.py': 'def a():\n  pass\n\ndef z():\n  pass\n',
    }


def test_numbers_of_other_processes_make_no_difference():
    def of(first, second):
        pickle = PICKLE[1].replace('_7', f'_{first}').replace('_9', f'_{second}')
        classes = [(f'code/__torch__/m/___torch_mangle_{number}.py', HEAD) for number in (first, second)]
        return canonical(archive(('data.pkl', pickle), *classes))

    assert of(7, 9) == of(12, 30)


def test_two_losses_are_scripted_in_one_process():
    first, second = (to_torchscript(unit_of(build_loss({'type': 'MSELoss', 'loss_weight': w}))) for w in (1.0, 2.0))
    assert first != second
    assert to_torchscript(unit_of({'type': 'MSELoss'})) == to_torchscript(unit_of({'type': 'MSELoss'}))
