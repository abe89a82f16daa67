"""Compares an exported training step with PyTorch: autograd, ``clip_grad_norm_`` and ``torch.optim``."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from lossreg.errors import CheckError
from lossreg.exporters.train_step import LR, Plan, StudentWithLoss, student_outputs
from lossreg.runtimes import OnnxRuntime

Arrays = dict[str, NDArray[Any]]

RTOL = 1e-4
"""The error allowed, relative to the largest number of each tensor: float32 sums in another order differ."""

NOISE = 10.0
"""The error allowed in addition, in multiples of the distance of PyTorch's float32 from its float64: where sums cancel,
as in the gradient of a bias before a norm, only rounding errors are left."""

TINY = 1e-12
"""The error always allowed: float32 sums of ordinary numbers cannot tell it from 0."""

STEPS = 3
"""The number of steps compared, on batches of other sizes than the traced one."""


def verify_step(plan: Plan, graphs: Mapping[str, OnnxRuntime]) -> float:
    """Runs some steps, each beside PyTorch's from the same state. Returns the worst relative error.

    Args:
        plan: the exported step.
        graphs: the graphs by role; the step itself has the role ''.

    Raises:
        CheckError: the numbers differ, or are not finite.
    """
    state: Arrays = {name: t.numpy() for name, t in plan.state().items()}
    reference, exact = Reference(plan, torch.float32), Reference(plan, torch.float64)
    worst = 0.0
    for number in range(STEPS * plan.options.accumulate):
        varied = plan.resized(plan.size + 1 + number)
        optimize = (number + 1) % plan.options.accumulate == 0
        expected, rounded = exact.step(varied, optimize), reference.step(varied, optimize)
        found, state = _run(graphs[''], varied, state)
        if plan.options.accumulate > 1 and optimize:
            more, state = _run(graphs['apply'], varied, state)
            found |= more
        if not found['ok']:
            raise CheckError('the loss of the examples, or its gradient, is not finite; give other examples')
        got = {**found, **state}
        worst = max(worst, _compare(got, expected, rounded, f'step {number + 1}'))
        reference.take(state)
        exact.take(state)
    for name, with_loss in (('eval', True), ('predict', False)):
        expected, rounded = exact.inference(varied, with_loss), reference.inference(varied, with_loss)
        found, _ = _run(graphs[name], varied, state)
        worst = max(worst, _compare(found, expected, rounded, name))
    return worst


def _run(graph: OnnxRuntime, plan: Plan, state: Arrays) -> tuple[Arrays, Arrays]:
    """The outputs of a graph, and the state after it."""
    lr = torch.tensor(float(plan.rule_and_options[1]['lr']))
    kept = {name: torch.from_numpy(np.asarray(array)) for name, array in state.items()}
    given = {**plan.batch, **plan.targets, LR: lr, **kept}
    outputs = graph({name: given[name] for name in graph.inputs})
    after = {name: outputs.pop(f'next_{name}', array) for name, array in state.items()}
    return outputs, after


def _compare(got: Arrays, expected: Arrays, rounded: Arrays, what: str) -> float:
    """The worst error, relative to the largest number of each tensor.

    Args:
        got: a graph's numbers.
        expected: PyTorch's numbers in float64.
        rounded: PyTorch's numbers in float32.
        what: what the numbers belong to, for the message.

    Raises:
        CheckError: the error is too large.
    """
    worst = 0.0
    for name, want in expected.items():
        error = float(np.abs(got[name].astype(np.float64) - want).max(initial=0.0))
        size = float(np.abs(want).max(initial=0.0))
        noise = float(np.abs(rounded[name].astype(np.float64) - want).max(initial=0.0))
        if not error <= RTOL * size + NOISE * noise + TINY:
            raise CheckError(f'{what} does not give the numbers of PyTorch: {name} is off by {error:.3g} of {size:.3g}')
        worst = max(worst, (error - NOISE * noise) / max(size, TINY))
    return worst


class AllIn(TorchFunctionMode):
    """Makes a student compute in another dtype where it asks for float32, as for images of bytes."""

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self._dtype = dtype

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Runs an operator with ``dtype`` in place of float32."""
        if func is Tensor.float:
            return args[0].to(self._dtype)
        other = {key: self._of(value) for key, value in (kwargs or {}).items()}
        return func(*(self._of(value) for value in args), **other)

    def _of(self, value: Any) -> Any:
        return self._dtype if value is torch.float32 else value


class Reference:
    """The step in PyTorch. It takes over the graph's state after each step, so that differences do not add up."""

    def __init__(self, plan: Plan, dtype: torch.dtype) -> None:
        self._plan = plan
        self._dtype = dtype
        self._model: StudentWithLoss = deepcopy(plan.model).to(dtype)
        self._parameters = {n.removeprefix('student.'): p for n, p in self._model.named_parameters()}
        for name, parameter in self._parameters.items():
            parameter.requires_grad_(name in plan.trained)
        options = plan.rule_and_options[1]
        groups = [
            {
                'params': [self._parameters[name]],
                'lr': options['lr'] * plan.factor(name, 'lr_mult'),
                'weight_decay': options['weight_decay'] * plan.factor(name, 'decay_mult'),
            }
            for name in plan.trained
        ]
        self._optimizer = getattr(torch.optim, plan.options.optimizer_cfg['type'])(groups, **options)

    @property
    def _buffers(self) -> dict[str, Tensor]:
        """The current buffers: a forward pass may assign new ones."""
        return {n.removeprefix('student.'): b for n, b in self._model.named_buffers()}

    def step(self, plan: Plan, optimize: bool) -> Arrays:
        """Runs a batch, and the optimizer if it is due. Returns losses and state by name."""
        unit = plan.unit
        with AllIn(self._dtype):
            returned = self._model(tuple(self._cast(plan.batch).values()), self._cast(plan.targets))
        results = dict(zip(unit.results, returned, strict=True))
        torch.stack([results[name].sum() for name in unit.call.losses]).sum().backward()  # type: ignore[no-untyped-call]
        found = {name: results[name].detach().numpy() for name in unit.call.outputs}
        with torch.no_grad():
            for declared in unit.inputs:
                if declared.state:
                    getattr(self._model.loss, declared.name).copy_(results[f'next_{declared.name}'])
        if optimize:
            found |= self._optimized()
        return {**found, **{f'buffer.{name}': self._buffers[name].numpy().copy() for name in plan.buffers}}

    def _optimized(self) -> Arrays:
        plan = self._plan
        trained = {name: self._parameters[name] for name in plan.trained}
        for parameter in trained.values():
            if parameter.grad is not None:
                parameter.grad /= plan.options.accumulate
        limit = plan.options.clip_grad
        norm = nn.utils.clip_grad_norm_(trained.values(), float('inf') if limit is None else limit)
        self._optimizer.step()
        found = {'grad_norm': norm.numpy()}
        for key, (slot, name) in plan.slots.items():
            found[key] = self._optimizer.state[trained[name]][slot].numpy().copy()
        for name, parameter in trained.items():
            found[f'parameter.{name}'] = parameter.detach().numpy().copy()
        self._optimizer.zero_grad()
        return found

    def _cast(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {name: t.to(self._dtype) if t.is_floating_point() else t for name, t in tensors.items()}

    def take(self, state: Arrays) -> None:
        """Takes over parameters, buffers and the optimizer's slots from a graph."""
        with torch.no_grad():
            for name, parameter in self._parameters.items():
                parameter.copy_(torch.from_numpy(state[f'parameter.{name}']))
            for name in self._plan.buffers:
                self._buffers[name].copy_(torch.from_numpy(np.asarray(state[f'buffer.{name}'])))
            for key, (slot, name) in self._plan.slots.items():
                kept = self._optimizer.state.get(self._parameters[name], {})
                if slot in kept:
                    kept[slot].copy_(torch.from_numpy(state[key]))

    def inference(self, plan: Plan, with_loss: bool) -> Arrays:
        """The student's outputs in evaluation mode, and their loss."""
        model = deepcopy(self._model).eval()
        batch = tuple(self._cast(plan.batch).values())
        with torch.no_grad(), AllIn(self._dtype):
            returned = student_outputs(plan.unit, model.student(*batch)).values()
            outputs = {name: tensor.numpy() for name, tensor in zip(plan.output_names, returned, strict=True)}
            if not with_loss:
                return outputs
            results = dict(zip(plan.unit.results, model(batch, self._cast(plan.targets)), strict=True))
        return {**{name: results[name].numpy() for name in plan.unit.call.outputs}, **outputs}
