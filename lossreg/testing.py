"""For packages with losses of their own: check that a module exports.

A loss with a :class:`lossreg.spec.LossSpec` is checked by ``lossreg check --import your.package``; this module is for
any ``nn.Module`` without one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from lossreg.compare import compare
from lossreg.exporters import build
from lossreg.formats import SUFFIXES
from lossreg.runtimes import Eager, load
from lossreg.spec import Call, Input, LossSpec, Role, Tolerance
from lossreg.unit import Unit

Inputs = Mapping[str, Tensor]
DEFAULT_TOLERANCE = Tolerance()


def assert_exportable(
    module: nn.Module,
    inputs: Inputs,
    *others: Inputs,
    formats: Sequence[str] = ('torchscript', 'pt2', 'onnx'),
    tolerance: Tolerance = DEFAULT_TOLERANCE,
) -> None:
    """Exports a loss in several formats, alone and with its gradient, and compares each file with eager.

    Args:
        module: any module whose ``forward`` takes tensors and returns one.
        inputs: its arguments by name. A gradient is taken for those that require it.
        others: further inputs, best of other shapes and of extreme values. A dimension whose size varies between the
            sets of inputs is dynamic in the files; dimensions that vary alike are the same dimension.
        formats: the formats to check.
        tolerance: the error allowed.

    Raises:
        AssertionError: a format cannot be exported, or does not give eager's numbers.
    """
    sets = [inputs, *others]
    unit = _unit(module, sets)
    for grad in (False, True) if unit.differentiable else (False,):
        eager = Eager(unit, grad)
        for format in formats:
            name = f'{type(module).__name__} as {format}{" with gradient" if grad else ""}'
            try:
                runtime = load(build(unit, [format], grad)[format], SUFFIXES[format])
            except Exception as error:
                raise AssertionError(f'{name} cannot be exported: {type(error).__name__}: {error}') from error
            for at, tensors in enumerate(sets):
                plain = {key: value.detach() for key, value in tensors.items()}
                found = compare(runtime(plain), eager(plain), tolerance)
                if not found:
                    raise AssertionError(f'{name}, inputs {at}: {found.detail}')


def _unit(module: nn.Module, sets: Sequence[Inputs]) -> Unit:
    """A unit with just enough of a spec to be exported."""
    symbols: dict[tuple[int, ...], str] = {}
    specs = []
    for name, tensor in sets[0].items():
        dims = []
        for axis in range(tensor.dim()):
            sizes = tuple(tensors[name].shape[axis] for tensors in sets)
            varies = len(set(sizes)) > 1
            dims.append(symbols.setdefault(sizes, f'D{len(symbols)}') if varies else str(sizes[0]))
        role = Role.FEATURES if tensor.is_floating_point() else Role.IDENTITIES
        specs.append(Input(name, role, ' '.join(dims), differentiable=tensor.requires_grad))
    call = Call('inputs', tuple(specs))
    spec = LossSpec(functions=(), calls=(call,), variants={'default': {}}, references=())
    examples = {name: tensor.detach() for name, tensor in sets[0].items()}
    return Unit(module, {'type': type(module).__name__}, 'default', call, call.inputs, spec, examples)
