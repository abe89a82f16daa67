"""Exports the graphs of a training step, or names the part of the student that cannot be exported."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_unflatten

from lossreg.errors import CheckError, ConfigError, DeclinedError, LossregError
from lossreg.exporters.decompositions import student_decompositions
from lossreg.exporters.onnx import to_onnx
from lossreg.exporters.signature import Port, Signature
from lossreg.exporters.trace import trace_module
from lossreg.exporters.train_step import EvalGraph, Plan, StepGraph


def exported(graph: StepGraph | EvalGraph, opset: int, more: Mapping[str, Any]) -> bytes:
    """The bytes of a graph.

    Args:
        graph: the graph.
        opset: ONNX opset.
        more: additional metadata.

    Raises:
        DeclinedError: it has an operator that cannot be exported.
    """
    signature = graph.signature()
    signature = replace(signature, metadata={**signature.metadata, **more})
    try:
        with _plain_attention():
            program = trace_module(graph, tuple(graph.examples().values()), signature, student_decompositions())
        return to_onnx(program, signature, opset)
    except CheckError as error:  # the model is invalid
        reason = _culprit(graph.plan, opset)
        if not reason:
            raise
        raise DeclinedError(reason) from error
    except LossregError:
        raise
    except Exception as error:  # tracing and exporting may raise anything
        raise DeclinedError(_why_not(graph, error, opset)) from error


@contextmanager
def _plain_attention() -> Iterator[None]:
    """Makes attention use matrix products and a softmax: the fused kernels have no gradient in ONNX."""
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)


def refuse_random_numbers(plan: Plan) -> None:
    """Raises ConfigError if the student draws random numbers."""
    with _plain_attention():
        used = operators_of(plan)
    for operator, use in used.items():
        if torch.Tag.nondeterministic_seeded in operator.tags:
            raise ConfigError(
                f'{operator}, which {use.module} uses, draws random numbers, which a graph cannot; '
                'call eval() on it, or set its probability to 0'
            )


def _why_not(graph: StepGraph | EvalGraph, error: BaseException, opset: int) -> str:
    """The part of the student that cannot be exported, and why, in one line."""
    causes = [error]
    while causes[-1].__cause__ is not None:
        causes.append(causes[-1].__cause__)
    text = '\n'.join(map(str, causes))
    for operator, use in operators_of(graph.plan).items():
        root = str(operator).removeprefix('aten.').partition('.')[0]
        if root == '_local_scalar_dense' and 'data-dependent' in text:
            return f'{use.module} takes a number out of a tensor (float(), if), which a graph cannot; keep it a tensor'
        if f'aten.{root}' in text or f'aten::{root}' in text:
            return _refusal(operator, use)
    first = next((line.strip() for line in str(causes[-1]).splitlines() if line.strip()), '')
    reason = f'{type(causes[-1]).__name__}: {first}'
    module = _module_in(graph.plan, error)
    if module:
        return f'{module} cannot be traced: {reason}'
    return _culprit(graph.plan, opset) or f'the student cannot be traced: {reason}'


def _refusal(operator: Any, use: OperatorUse) -> str:
    return f'{operator}, which {use.module} uses, cannot be exported with its gradient; write it with other operators'


def _module_in(plan: Plan, error: BaseException) -> str:
    """The innermost module of the student in an error's traceback; '' if there is none."""
    names = {id(module): _named(name, module) for name, module in plan.model.student.named_modules() if name}
    found = ''
    frames = error.__traceback__
    while frames is not None:
        found = names.get(id(frames.tb_frame.f_locals.get('self')), found)
        frames = frames.tb_next
    return found


def _culprit(plan: Plan, opset: int) -> str:
    """A message about the first operator of the student that cannot be exported even alone; '' if each can."""
    for operator, use in operators_of(plan).items():
        alone = _Alone(operator, use)
        tensors = alone.examples
        ports = tuple(Port(f'x{at}', tuple(map(str, t.shape))) for at, t in enumerate(tensors))
        try:
            signature = Signature('alone', ports, tuple(f'y{at}' for at in range(len(alone(*tensors)))), {})
            if signature.outputs:
                to_onnx(trace_module(alone, tensors, signature, student_decompositions()), signature, opset)
        except Exception:  # as in `exported`
            return _refusal(operator, use)
    return ''


class _Alone(nn.Module):
    """One operator with the arguments it was called with, and its gradient."""

    def __init__(self, operator: Any, use: OperatorUse) -> None:
        super().__init__()
        self.operator = operator
        self.values, self.tree = tree_flatten((use.arguments, use.options))

    @property
    def examples(self) -> tuple[Tensor, ...]:
        """The tensors it was called with."""
        return tuple(value.detach() for value in self.values if isinstance(value, Tensor))

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        """Computes the floating-point outputs, and the gradient of their sum."""
        left = iter(tensors)
        given = [next(left) if isinstance(value, Tensor) else value for value in self.values]
        leaves = [t.detach().requires_grad_() for t in tensors if t.is_floating_point()]
        floating = iter(leaves)
        given = [next(floating) if isinstance(v, Tensor) and v.is_floating_point() else v for v in given]
        arguments, options = tree_unflatten(given, self.tree)
        with torch.enable_grad():
            returned = [
                t for t in tree_flatten(self.operator(*arguments, **options))[0]
                if isinstance(t, Tensor) and t.is_floating_point()
            ]  # fmt: skip
            connected = [t.sum() for t in returned if t.requires_grad]
            found = torch.autograd.grad(connected, leaves, allow_unused=True) if connected else ()
        return (*(t.detach() for t in returned), *(g for g in found if g is not None))


@dataclass(frozen=True)
class OperatorUse:
    """Where a student uses an operator.

    Attributes:
        module: the name and class of the module.
        arguments: the positional arguments of the operator there.
        options: its keyword arguments.
    """

    module: str
    arguments: tuple[Any, ...]
    options: Mapping[str, Any]


def _named(name: str, module: nn.Module) -> str:
    return f'{name} ({type(module).__name__})'


def operators_of(plan: Plan) -> dict[Any, OperatorUse]:
    """The first use of each operator in the student, those with the longest names first."""
    found: dict[Any, OperatorUse] = {}
    inside: list[str] = ['the student']

    class Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call]
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            found.setdefault(func, OperatorUse(inside[-1], args, kwargs or {}))
            return func(*args, **(kwargs or {}))

    student = deepcopy(plan.model.student)
    for name, module in student.named_modules():
        if name:
            module.register_forward_pre_hook(lambda m, a, n=name: inside.append(_named(n, m)))
            module.register_forward_hook(lambda m, a, o: inside.pop() and None)
    with Recorder():  # type: ignore[no-untyped-call]
        student(*plan.batch_values)
    return dict(sorted(found.items(), key=lambda item: -len(str(item[0]))))
