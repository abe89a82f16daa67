"""A whole training step as one graph: student, loss, gradient, clipping and optimizer.

The step is a pure function of tensors. Parameters, running statistics and the optimizer's slots are inputs and outputs,
so a device needs nothing but an ONNX runtime; ``lossreg/device.py`` keeps them between steps.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from lossreg.artefact import STEP_KIND
from lossreg.errors import ConfigError, LossregError
from lossreg.exporters.signature import Port, Signature
from lossreg.optimizers import Rule, optimizer
from lossreg.request import Request
from lossreg.unit import Unit

STEP = 'step'
LR = 'lr'


class StudentWithLoss(nn.Module):
    """The student and the loss, to train their parameters together."""

    def __init__(self, student: nn.Module, unit: Unit) -> None:
        super().__init__()
        self.student = student
        self.loss = unit.loss
        self._unit = unit

    def forward(self, batch: Sequence[Tensor], targets: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
        """Returns the outputs of the loss's call and, if the loss has state, its next state."""
        unit = self._unit
        state = {i.name: getattr(self.loss, i.name) for i in unit.inputs if i.state}
        given = {**student_outputs(unit, self.student(*batch)), **targets, **state}
        return unit.run(self.loss, given)


def student_outputs(unit: Unit, returned: Any) -> dict[str, Tensor]:
    """The student's outputs as inputs of the loss: by name, or the differentiable ones in order.

    Raises:
        ConfigError: they do not fit.
    """
    names = [i.name for i in unit.differentiable]
    if isinstance(returned, Mapping):
        if set(returned) != set(names):
            raise ConfigError(f'the student returns {sorted(returned)}, but {unit.name} takes {names} of it')
        return dict(returned)
    outputs = list(returned) if isinstance(returned, (tuple, list)) else [returned]
    if len(outputs) != len(names) or not all(isinstance(output, Tensor) for output in outputs):
        raise ConfigError(f'the student returns {len(outputs)} outputs, but {unit.name} takes {len(names)}: {names}')
    return dict(zip(names, outputs, strict=True))


@dataclass(frozen=True)
class Options:
    """What is trained, and how.

    Attributes:
        optimizer_cfg: ``dict(type='SGD', lr=0.1, momentum=0.9)``; SGD, Adam or AdamW with torch's options.
        trainable: a regular expression; parameters in whose names it is not found are frozen.
        paramwise: factors by regular expression, ``{r'bias$': dict(lr_mult=2.0, decay_mult=0.0)}``. The first that is
            found in a parameter's name counts.
        clip_grad: the largest norm of all gradients together; None for no limit.
        accumulate: the number of batches per optimizer step. More than one makes two graphs.
    """

    optimizer_cfg: Mapping[str, Any]
    trainable: str = ''
    paramwise: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    clip_grad: float | None = None
    accumulate: int = 1

    def check(self) -> None:
        """Raises ConfigError if a value is invalid."""
        if not isinstance(self.accumulate, int) or self.accumulate < 1:
            raise ConfigError(f'accumulate must be 1 or more, got {self.accumulate}')
        if self.clip_grad is not None and not (isinstance(self.clip_grad, (int, float)) and self.clip_grad > 0):
            raise ConfigError(f'clip_grad must be a norm above 0, got {self.clip_grad}')
        for pattern in (self.trainable, *self.paramwise):
            try:
                re.compile(pattern)
            except (re.error, TypeError) as error:
                raise ConfigError(f'{pattern!r} is not a regular expression: {error}') from error
        for pattern, factors in self.paramwise.items():
            numbers = isinstance(factors, Mapping) and all(isinstance(f, (int, float)) for f in factors.values())
            if not numbers or set(factors) - {'lr_mult', 'decay_mult'}:
                raise ConfigError(f'paramwise[{pattern!r}] takes numbers for lr_mult and decay_mult, got {factors!r}')


@dataclass(frozen=True)
class Plan:
    """A training step about to be exported.

    Attributes:
        model: student and loss.
        unit: the loss, in one call with the inputs present.
        options: what is trained, and how.
        batch: example inputs of the student, by name.
        targets: example inputs of the loss that the student does not compute, by name.
    """

    model: StudentWithLoss
    unit: Unit
    options: Options
    batch: Mapping[str, Tensor]
    targets: Mapping[str, Tensor]

    @classmethod
    def of(
        cls,
        student: nn.Module,
        loss_cfg: Mapping[str, Any] | str,
        options: Options,
        example_inputs: Sequence[Tensor],
        example_targets: Sequence[Tensor] | Mapping[str, Tensor],
        call: str = '',
    ) -> Plan:
        """Makes a plan and checks that its parts fit together.

        Raises:
            ConfigError: they do not.
        """
        options.check()
        if not isinstance(student, nn.Module):
            raise ConfigError(f'the student must be an nn.Module, got {type(student).__name__}')
        if any(isinstance(given, Tensor) for given in (example_inputs, example_targets)):
            raise ConfigError('example_inputs and example_targets are sequences of tensors; write (tensor,)')
        unit = _unit(Request.of(loss_cfg, call_name=call), example_targets)
        batch = dict(zip(_input_names(student, len(example_inputs)), example_inputs, strict=True))
        targets = _targets(unit, example_targets)
        plan = cls(StudentWithLoss(deepcopy(student).cpu(), unit), unit, options, batch, targets)
        plan._check()
        return plan

    def _check(self) -> None:
        names = [*self.batch, *self.targets, *self.output_names, *self.unit.call.outputs, LR, STEP, 'grad_norm', 'ok']
        if len(set(names)) < len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise ConfigError(
                f'two inputs or outputs of the step would be named {twice!r}; rename an input of the student'
            )
        if any(name.startswith('student.loss.') for name in self.model.state_dict()):
            raise ConfigError("a child module of the student is named 'loss', a prefix taken in files; rename it")
        for name, t in {**self.batch, **self.parameters, **self.buffers}.items():
            if t.is_floating_point() and t.dtype != torch.float32:
                raise ConfigError(f'a training step computes in float32, but {name} is {t.dtype}; call float() on it')
        if not self.batch or not all(t.dim() and t.shape[0] == self.size for t in self.batch.values()):
            raise ConfigError('every input of the student needs the batch as its first dimension, of one size')
        self.rule_and_options  # noqa: B018  raises where the optimizer's config is wrong
        if not self.batch_symbols:
            raise ConfigError('no output of the student has the batch as its first dimension')
        if not self.trained:
            raise ConfigError(
                f'no parameter that the loss depends on has {self.options.trainable!r} in its name and requires_grad'
            )

    @property
    def output_names(self) -> tuple[str, ...]:
        """The names of the student's outputs in files: ``output``, or the loss's inputs if there are several."""
        names = tuple(i.name for i in self.unit.differentiable)
        return names if len(names) > 1 else ('output',)

    @property
    def batch_values(self) -> tuple[Tensor, ...]:
        """The example inputs of the student, in order."""
        return tuple(self.batch.values())

    @property
    def size(self) -> int:
        """The number of samples in the examples."""
        return next(iter(self.batch.values())).shape[0]

    @cached_property
    def rule_and_options(self) -> tuple[Rule, dict[str, Any]]:
        """The optimizer's rule and options."""
        return optimizer(self.options.optimizer_cfg)

    @cached_property
    def parameters(self) -> dict[str, Tensor]:
        """All parameters by their names in files: the student's own, and the loss's with the prefix ``loss.``."""
        return {_file_name(name): p.detach() for name, p in self.model.named_parameters()}

    @cached_property
    def buffers(self) -> dict[str, Tensor]:
        """The running statistics and the loss's state, by their names in files."""
        return {_file_name(name): b.detach() for name, b in self.model.named_buffers() if self._is_kept(name)}

    def _is_kept(self, name: str) -> bool:
        """Whether a buffer is state: a persistent one of the student, or one that the loss's spec declares as state.

        The loss's other buffers are options, which the graph holds as constants.
        """
        if name.startswith('loss.'):
            return name.removeprefix('loss.') in {i.name for i in self.unit.inputs if i.state}
        return name in self.model.state_dict()

    @cached_property
    def tied(self) -> dict[str, str]:
        """The other names of shared parameters and buffers, each with the name in files."""
        kept = {id(t): _file_name(name) for name, t in _tensors(self.model, remove_duplicate=True)}
        every = {_file_name(name): kept[id(t)] for name, t in _tensors(self.model, remove_duplicate=False)}
        return {name: first for name, first in every.items() if name != first}

    @cached_property
    def trained(self) -> tuple[str, ...]:
        """The parameters that are not frozen and that the loss depends on; ``torch.optim`` skips the others."""
        model = deepcopy(self.model)
        found = {_file_name(name): p for name, p in model.named_parameters() if p.requires_grad}
        wanted = {name: p for name, p in found.items() if re.search(self.options.trainable, name)}
        returned = dict(zip(self.unit.results, _tried(model, (self.batch_values, self.targets)), strict=True))
        losses = [returned[name].sum() for name in self.unit.call.losses if returned[name].requires_grad]
        if not wanted or not losses:
            return ()
        gradients = torch.autograd.grad(losses, list(wanted.values()), allow_unused=True)
        return tuple(name for name, gradient in zip(wanted, gradients, strict=True) if gradient is not None)

    @property
    def slots(self) -> dict[str, tuple[str, str]]:
        """The slot and the parameter of each of the optimizer's tensors, by its name in files."""
        rule, options = self.rule_and_options
        return {f'{slot}.{name}': (slot, name) for name in self.trained for slot in rule.slots(options)}

    def state(self) -> dict[str, Tensor]:
        """The initial state, by the names of the graph's inputs."""
        found = {f'parameter.{name}': p for name, p in self.parameters.items()}
        found |= {f'buffer.{name}': b for name, b in self.buffers.items()}
        found |= {slot: torch.zeros_like(self.parameters[name]) for slot, (_, name) in self.slots.items()}
        if self.options.accumulate > 1:
            found |= {f'gradient.{name}': torch.zeros_like(self.parameters[name]) for name in self.trained}
        return {**found, STEP: torch.zeros((), dtype=torch.int64)}

    def factor(self, name: str, which: str) -> float:
        """``lr_mult`` or ``decay_mult`` of a parameter."""
        for pattern, factors in self.options.paramwise.items():
            if re.search(pattern, name):
                return float(factors.get(which, 1.0))
        return 1.0

    def resized(self, size: int) -> Plan:
        """The plan with another number of samples in the examples, which repeats the given ones."""
        rows, axes = torch.arange(size) % self.size, self.batched_axes()
        batch = {name: t[rows] for name, t in self.batch.items()}
        targets = {name: t.index_select(axes[name], rows) if name in axes else t for name, t in self.targets.items()}
        return replace(self, batch=batch, targets=targets)

    def batched_axes(self) -> dict[str, int]:
        """The batch dimension of each input and target that has one."""
        axes = {
            declared.name: axis
            for declared in self.unit.inputs
            for axis, symbol in enumerate(declared.dims)
            if declared.name in self.targets and symbol in self.batch_symbols
        }
        return {**axes, **dict.fromkeys(self.batch, 0)}

    @cached_property
    def batch_symbols(self) -> set[str]:
        """The symbols of the batch in the loss: the first dimensions of the student's outputs that have it."""
        with torch.no_grad():
            returned = _tried(deepcopy(self.model.student), self.batch_values)
        outputs = student_outputs(self.unit, returned)
        return {
            declared.dims[0]
            for declared in self.unit.differentiable
            if declared.dims and outputs[declared.name].dim() and outputs[declared.name].shape[0] == self.size
        }


def _file_name(name: str) -> str:
    return name.removeprefix('student.')


def _tensors(module: nn.Module, remove_duplicate: bool) -> Iterator[tuple[str, Tensor]]:
    yield from module.named_parameters(remove_duplicate=remove_duplicate)
    yield from module.named_buffers(remove_duplicate=remove_duplicate)


def _tried(module: nn.Module, arguments: tuple[Any, ...]) -> Any:
    """The outputs of a module for the examples.

    Raises:
        ConfigError: it does not accept them.
    """
    try:
        return module(*arguments)
    except LossregError:
        raise
    except Exception as error:  # a student may raise anything
        raise ConfigError(f'the examples do not fit: {type(error).__name__}: {error}') from error


def _unit(request: Request, targets: Sequence[Tensor] | Mapping[str, Tensor]) -> Unit:
    """The loss in its first call, with the optional inputs that targets name."""
    call = request.calls()[0]
    return request.unit(call, targets if isinstance(targets, Mapping) else ())


def _targets(unit: Unit, given: Sequence[Tensor] | Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The inputs of the loss that the student does not compute, by name."""
    names = [i.name for i in unit.inputs if not i.differentiable and not i.state]
    found = dict(given) if isinstance(given, Mapping) else dict(zip(names, given, strict=False))
    if set(found) != set(names) or len(found) != len(given):
        raise ConfigError(f'{unit.name} needs the targets {names}, got {sorted(found)} of {len(given)} given')
    for declared in unit.inputs:
        if declared.name in found and found[declared.name].dim() != len(declared.dims):
            shape = list(found[declared.name].shape)
            raise ConfigError(
                f'target {declared.name} has shape {shape}, but {unit.name} takes ({" ".join(declared.dims)}) '
                f'in its call {unit.call.name}; choose another with call='
            )
    return {name: found[name] for name in names}


def _input_names(student: nn.Module, count: int) -> list[str]:
    """The names of the student's inputs: its forward's parameters, or numbered if it has fewer."""
    parameters = inspect.signature(student.forward).parameters.values()
    names = [p.name for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    return names[:count] if len(names) >= count else [f'input_{number}' for number in range(count)]


class StepGraph(nn.Module):
    """A step, or with ``accumulate`` one of its halves, as a function of the tensors that its signature names.

    Args:
        plan: the step.
        part: ``step`` for all of it, ``gradient`` to accumulate gradients, ``apply`` for the optimizer's half.
    """

    def __init__(self, plan: Plan, part: str) -> None:
        super().__init__()
        self.plan = plan
        self.part = part
        state = plan.state()
        kept = {name for name in state if self._takes(name)}
        self.state = {name: tensor for name, tensor in state.items() if name in kept}
        self.changes = [name for name in self.state if self._changes(name)]

    def _takes(self, name: str) -> bool:
        kind = name.partition('.')[0]
        if self.part == 'gradient':
            return kind in ('parameter', 'buffer', 'gradient')
        return kind != 'buffer' if self.part == 'apply' else True

    def _changes(self, name: str) -> bool:
        kind, _, parameter = name.partition('.')
        if kind == 'parameter':
            return self.part != 'gradient' and parameter in self.plan.trained
        return True

    def examples(self) -> dict[str, Tensor]:
        """All inputs by name, in order."""
        data = {} if self.part == 'apply' else {**self.plan.batch, **self.plan.targets}
        lr = torch.tensor(float(self.plan.rule_and_options[1]['lr']))
        return {**data, **({} if self.part == 'gradient' else {LR: lr}), **self.state}

    def signature(self) -> Signature:
        """The names of all inputs and outputs, with a dynamic batch."""
        batched = {} if self.part == 'apply' else self.plan.batched_axes()
        ports = tuple(
            Port(name, tuple('N' if batched.get(name) == axis else str(size) for axis, size in enumerate(t.shape)))
            for name, t in self.examples().items()
        )
        parts = () if self.part == 'apply' else self.plan.unit.call.outputs
        norm = () if self.part == 'gradient' else ('grad_norm',)
        outputs = (*parts, *norm, 'ok', *(f'next_{name}' for name in self.changes))
        floating = [name for name, t in self.plan.batch.items() if t.is_floating_point()]
        guard = '' if self.part == 'apply' else next(iter([*floating, *self.state]))
        return Signature(f'{self.plan.unit.name}_{self.part}', ports, outputs, metadata_of(self, ports, outputs), guard)

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        """Computes the outputs."""
        given = dict(zip(self.examples(), tensors, strict=True))
        if self.part == 'apply':
            gradients = {name: given[f'gradient.{name}'] / self.plan.options.accumulate for name in self.plan.trained}
            norm, ok, new = self._updated(given, gradients, torch.ones((), dtype=torch.bool))
            new |= {f'gradient.{name}': torch.zeros_like(g) for name, g in gradients.items()}
            return (norm, ok, *self._next(given, new, ok))
        results, gradients, buffers = self._differentiated(given)
        # running statistics may overflow before the loss does
        kept = [t for t in buffers.values() if t.is_floating_point()]
        finite = torch.stack([t.isfinite().all() for t in (*results, *kept)]).all()
        if self.part == 'gradient':
            new = {f'gradient.{name}': given[f'gradient.{name}'] + g for name, g in gradients.items()}
            # their norm too, because nothing must be added that the optimizer's half would refuse
            ok = finite & _norm(list(new.values())).isfinite()
            return (*results, ok, *self._next(given, {**new, **buffers}, ok))
        norm, ok, new = self._updated(given, gradients, finite)
        return (*results, norm, ok, *self._next(given, {**new, **buffers}, ok))

    def _next(self, given: Mapping[str, Tensor], new: Mapping[str, Tensor], ok: Tensor) -> Iterator[Tensor]:
        """Yields the state after the step, which is the old one if loss or gradient is not finite."""
        for name in self.changes:
            changed = new[name].to(given[name].dtype) if name in new else given[name]
            yield torch.where(ok, changed, given[name])

    def _differentiated(
        self, given: Mapping[str, Tensor]
    ) -> tuple[tuple[Tensor, ...], dict[str, Tensor], dict[str, Tensor]]:
        """The loss's outputs, the gradients, and the buffers after the forward pass."""
        plan, call = self.plan, self.plan.unit.call
        leaves = {n: given[f'parameter.{n}'].detach() for n in plan.parameters}
        leaves |= {n: leaves[n].requires_grad_(True) for n in plan.trained}
        # copies, because a forward pass writes running statistics in place
        buffers = {n: given[f'buffer.{n}'].clone() for n in plan.buffers}
        names = {_file_name(name): name for name, _ in plan.model.named_parameters()}
        names |= {_file_name(name): name for name, _ in plan.model.named_buffers()}
        held = {names[n]: t for n, t in {**leaves, **buffers}.items()}
        batch = tuple(given[name] for name in plan.batch)
        with torch.enable_grad():
            returned = torch.func.functional_call(
                plan.model, held, (batch, {name: given[name] for name in plan.targets})
            )
            results = dict(zip(plan.unit.results, returned, strict=True))
            losses = [results[name].sum() for name in call.losses]
            found = torch.autograd.grad(losses, [leaves[n] for n in plan.trained], materialize_grads=True)
        state = {f'loss.{i.name}': results[f'next_{i.name}'] for i in plan.unit.inputs if i.state}
        # not from `buffers`: a module may also assign new ones
        after = {f'buffer.{n}': t.detach() for n, t in {**{n: held[names[n]] for n in buffers}, **state}.items()}
        outputs = tuple(results[name].detach() for name in call.outputs)
        return outputs, dict(zip(plan.trained, found, strict=True)), after

    def _updated(
        self, given: Mapping[str, Tensor], gradients: Mapping[str, Tensor], finite: Tensor
    ) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """The norm of the gradients, whether everything is finite, and the state that the optimizer changes."""
        rule, options = self.plan.rule_and_options
        norm = _norm(list(gradients.values()))
        ok = finite & norm.isfinite() & given[LR].isfinite()
        limit = self.plan.options.clip_grad
        # as in torch.nn.utils.clip_grad_norm_
        scale = None if limit is None else (limit / (norm + 1e-6)).clamp(max=1.0)
        new: dict[str, Tensor] = {STEP: given[STEP] + 1}
        for name, gradient in gradients.items():
            slots = {slot: given[key] for key, (slot, owner) in self.plan.slots.items() if owner == name}
            moved, kept = rule.update(
                given[f'parameter.{name}'],
                gradient if scale is None else gradient * scale,
                slots,
                given[LR] * self.plan.factor(name, 'lr_mult'),
                options['weight_decay'] * self.plan.factor(name, 'decay_mult'),
                given[STEP],
                options,
            )
            new[f'parameter.{name}'] = moved
            new |= {f'{slot}.{name}': tensor for slot, tensor in kept.items()}
        return norm, ok, new


def _norm(tensors: Sequence[Tensor]) -> Tensor:
    return torch.stack([t.square().sum() for t in tensors]).sum().sqrt()


class EvalGraph(nn.Module):
    """The student in evaluation mode, with the same parameters as inputs: its outputs, or the loss of a batch.

    Args:
        plan: the step.
        with_loss: whether the loss is computed too.
    """

    def __init__(self, plan: Plan, with_loss: bool) -> None:
        super().__init__()
        self.plan = replace(plan, model=deepcopy(plan.model).eval())
        self.with_loss = with_loss
        state = plan.state()
        self.state = {name: state[name] for name in state if name.partition('.')[0] in ('parameter', 'buffer')}
        if not with_loss:
            self.state = {n: t for n, t in self.state.items() if not n.partition('.')[2].startswith('loss.')}

    def examples(self) -> dict[str, Tensor]:
        """All inputs by name, in order."""
        return {**self.plan.batch, **(self.plan.targets if self.with_loss else {}), **self.state}

    def signature(self) -> Signature:
        """The names of all inputs and outputs, with a dynamic batch."""
        outputs = (*(self.plan.unit.call.outputs if self.with_loss else ()), *self.plan.output_names)
        axes = self.plan.batched_axes()
        ports = tuple(
            Port(name, tuple('N' if axes.get(name) == axis else str(size) for axis, size in enumerate(t.shape)))
            for name, t in self.examples().items()
        )
        part = 'eval' if self.with_loss else 'predict'
        return Signature(f'{self.plan.unit.name}_{part}', ports, outputs, metadata_of(self, ports, outputs))

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        """Computes the outputs."""
        given = dict(zip(self.examples(), tensors, strict=True))
        plan = self.plan
        values = {name.partition('.')[2]: given[name] for name in self.state}
        student = {name: t for name, t in values.items() if not name.startswith('loss.')}
        batch = tuple(given[name] for name in plan.batch)
        outputs = student_outputs(plan.unit, torch.func.functional_call(plan.model.student, student, batch))
        if not self.with_loss:
            return tuple(outputs.values())
        held = {f'student.{n}': t for n, t in student.items()}
        held |= {n: t for n, t in values.items() if n.startswith('loss.')}
        returned = torch.func.functional_call(plan.model, held, (batch, {name: given[name] for name in plan.targets}))
        results = dict(zip(plan.unit.results, returned, strict=True))
        return (*(results[name] for name in plan.unit.call.outputs), *outputs.values())


def metadata_of(graph: StepGraph | EvalGraph, ports: Sequence[Port], outputs: Sequence[str]) -> dict[str, Any]:
    """The metadata of a file: what ``device.py`` needs to run it."""
    from importlib.metadata import version

    plan, examples = graph.plan, graph.examples()
    rule_options = plan.rule_and_options[1]
    return {
        'schema': 1,
        'lossreg': version('lossreg'),
        'kind': STEP_KIND,
        'loss': plan.unit.name,
        'config': dict(plan.unit.config),
        'call': plan.unit.call.name,
        'optimizer': {'type': plan.options.optimizer_cfg['type'], **rule_options},
        'accumulate': plan.options.accumulate,
        'trained': list(plan.trained),
        'tied': plan.tied,
        'losses': list(plan.unit.call.losses),
        'inputs': [
            {'name': p.name, 'shape': list(p.dims), 'dtype': str(examples[p.name].dtype).removeprefix('torch.')}
            for p in ports
            if p.name not in graph.state
        ],
        'state': [name for name in examples if name in graph.state],
        'outputs': [name for name in outputs if not name.startswith('next_')],
    }
