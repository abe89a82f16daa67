"""Combines losses into one objective: the inputs that they share, and the graph of their weighted sum."""

from __future__ import annotations

import operator
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from keyword import iskeyword
from typing import Any

from torch import Tensor, fx, nn

from lossreg.registry import build_loss
from lossreg.spec import Call, Input, Role, calls_of, spec_of


@dataclass(frozen=True)
class Term:
    """One summand of an objective.

    Attributes:
        name: its name in the objective's result.
        loss: the module.
        call: the call used.
        uses: for each time it is called, the objective's names of its inputs.
        weight: its factor, or the name of an input that holds the factor.
    """

    name: str
    loss: nn.Module
    call: Call
    uses: tuple[Mapping[str, str], ...]
    weight: float | str

    @property
    def inputs(self) -> list[Input]:
        """The inputs present, as the loss declares them."""
        return [i for i in self.call.inputs if i.name in self.uses[0]]


def term_of(name: str, description: Mapping[str, Any], *, penalty: bool, loss: nn.Module | None = None) -> Term:
    """A term from its config: ``dict(loss=dict(type=...), inputs=..., weight=1.0, call='')``.

    Args:
        name: an identifier.
        description: the config. ``inputs`` maps the loss's inputs to the objective's, or lists the latter in order; a
            penalty is applied to each input listed.
        penalty: whether the term is a penalty.
        loss: the module, if it has been built already.

    Raises:
        ValueError: the config is incomplete, or names inputs or a call that the loss does not have.
    """
    unknown = sorted(set(description) - {'loss', 'inputs', 'weight', 'call'})
    if not name.isidentifier() or iskeyword(name) or name == 'loss' or hasattr(fx.GraphModule, name):
        raise ValueError(
            f'a term cannot be named {name!r}; give an identifier that is not loss, a keyword or a name in nn.Module'
        )
    if unknown or 'loss' not in description or 'inputs' not in description:
        wrong = f'has no use for {", ".join(unknown)}' if unknown else 'needs loss and inputs'
        raise ValueError(f'term {name} {wrong}; write dict(loss=dict(type=...), inputs=dict(...), weight=1.0)')
    loss = build_loss(description['loss']) if loss is None else loss
    call = _chosen_call(name, loss, description.get('call', ''))
    inputs = description['inputs']
    known = [i.name for i in call.inputs if i.when(loss) and i.role is not Role.AVG_FACTOR]
    each = [{known[0]: given} for given in inputs] if penalty else [_by_name(inputs, known)]
    required = [i.name for i in call.inputs if i.name in known and not i.optional]
    for use in each:
        for given in use:
            if given not in known:
                raise ValueError(
                    f'term {name}: {type(loss).__name__} has no input {given!r}; it has {", ".join(known)}'
                )
        for needed in required:
            if needed not in use:
                raise ValueError(f'term {name} lacks input {needed!r}; {type(loss).__name__} has {", ".join(known)}')
    weight = description.get('weight', 1.0)
    return Term(name, loss, call, tuple(each), weight if isinstance(weight, str) else float(weight))


def check_names(terms: Sequence[Term]) -> None:
    """Raises ValueError if two of the objective's inputs and results would have the same name in an artefact."""
    inputs = {given: f'an input of term {term.name}' for term in terms for use in term.uses for given in use.values()}
    scales = {term.weight: f'the weight of term {term.name}' for term in terms if isinstance(term.weight, str)}
    differentiable = {
        use[declared.name] for term in terms for use in term.uses for declared in term.inputs if declared.differentiable
    }
    results = [
        ('loss', 'the sum'),
        *((term.name, f'the value of term {term.name}') for term in terms),
        *((f'grad_{name}', f'the gradient of {name}') for name in sorted(differentiable)),
        ('grad_output', 'the cotangent that an artefact may take'),
    ]
    taken = {**scales, **inputs}
    for name, what in results:
        if name in taken:
            raise ValueError(f'{name!r} is {taken[name]} and {what}; rename one of them')
        taken[name] = what


def _by_name(inputs: Mapping[str, str] | Sequence[str], known: Sequence[str]) -> dict[str, str]:
    if isinstance(inputs, Mapping):
        return dict(inputs)
    if len(inputs) > len(known):
        raise ValueError(f'inputs {list(inputs)} are more than {list(known)}')
    return dict(zip(known, inputs, strict=False))


def _chosen_call(term: str, loss: nn.Module, name: str) -> Call:
    calls = [c for c in calls_of(loss) if c.when(loss) and not any(i.state for i in c.inputs)]
    chosen = [call for call in calls if call.name == name] if name else calls
    if not chosen:
        have = ', '.join(call.name for call in calls) or 'none without state'
        raise ValueError(f'term {term}: {type(loss).__name__} has no call {name!r} here; its calls: {have}')
    return chosen[0]


def sum_of(terms: Sequence[Term]) -> fx.GraphModule:
    """A module that maps named tensors to the weighted sum, ``loss``, and the unweighted terms.

    It is built as a graph because each loss takes other arguments; TorchScript compiles it as straight-line code.
    """
    graph = fx.Graph()
    source = graph.placeholder('inputs', type_expr=dict[str, Tensor])
    names = dict.fromkeys(name for term in terms for name in _names(term))
    values = {name: graph.call_function(operator.getitem, (source, name)) for name in names}
    parts: dict[str, fx.Node] = {}
    summands: list[fx.Node] = []
    for term in terms:
        parts[term.name] = _added(graph, [_value(graph, term, use, values) for use in term.uses])
        weight = values[term.weight] if isinstance(term.weight, str) else term.weight
        summands.append(graph.call_function(operator.mul, (parts[term.name], weight)))
    graph.output({'loss': _added(graph, summands), **parts}, type_expr=dict[str, Tensor])
    return fx.GraphModule({term.name: term.loss for term in terms}, graph)


def _names(term: Term) -> Iterator[str]:
    for use in term.uses:
        yield from use.values()
    if isinstance(term.weight, str):
        yield term.weight


def _value(graph: fx.Graph, term: Term, use: Mapping[str, str], values: Mapping[str, fx.Node]) -> fx.Node:
    """The value of one call of a term's loss, a scalar."""
    call = term.call
    result = graph.call_module(term.name, kwargs=call.arrange({name: values[given] for name, given in use.items()}))
    if not call.returns_dict and len(call.outputs) == 1:
        return graph.call_method('sum', (result,))
    keys = call.losses if call.returns_dict else [call.outputs.index(name) for name in call.losses]
    losses = [graph.call_function(operator.getitem, (result, key)) for key in keys]
    return _added(graph, [graph.call_method('sum', (loss,)) for loss in losses])


def _added(graph: fx.Graph, nodes: Sequence[fx.Node]) -> fx.Node:
    total = nodes[0]
    for node in nodes[1:]:
        total = graph.call_function(operator.add, (total, node))
    return total


@dataclass(frozen=True)
class TermInput:
    """One input of one call of a term's loss."""

    term: Term
    declared: Input
    name: str
    number: int

    def key(self, symbol: str) -> str:
        """The key of one of this call's dimensions; a number is its own key."""
        return symbol if symbol.isdigit() else f'{self.term.name}{self.number}.{symbol}'


class Dimensions:
    """The dimensions of an objective: those of its terms, unified where terms share an input.

    Raises:
        ValueError: terms need different shapes or types of an input.
    """

    def __init__(self, terms: Sequence[Term]) -> None:
        self._uses = [
            TermInput(term, declared, names[declared.name], number)
            for term in terms
            for number, names in enumerate(term.uses)
            for declared in term.inputs
        ]
        self._same: dict[str, str] = {}
        self._by_name: dict[str, list[TermInput]] = {}
        for use in self._uses:
            self._share(use)
        self._names = self._chosen_names()
        scales = dict.fromkeys(term.weight for term in terms if isinstance(term.weight, str))
        self.inputs = (
            *(self._joined(name, uses) for name, uses in self._by_name.items()),
            *(Input(name, Role.SCALE, '') for name in scales if name not in self._by_name),
        )

    def sizes(self, least: bool) -> dict[str, int]:
        """The sizes that the terms fix, or with ``least`` their minimum sizes, by the objective's symbols."""
        found: dict[str, int] = {}
        for use in self._uses:
            spec = spec_of(use.term.loss)
            for symbol, size in (spec.at_least if least else spec.sizes)(use.term.loss).items():
                name = self._name(use, symbol)
                if not least and found.get(name, size) != size:
                    raise ValueError(f'{use.name} needs {size} in dimension {name}, another input {found[name]}')
                found[name] = max(found.get(name, 0), size)
        return found

    def _share(self, use: TermInput) -> None:
        """Ties the dimensions of an input to those of its first use."""
        first = self._by_name.setdefault(use.name, [])
        first.append(use)
        declared, other = use.declared, first[0].declared
        if len(other.dims) != len(declared.dims) or other.role.is_integer != declared.role.is_integer:
            raise ValueError(
                f'{use.name} is {other.role.value} of shape ({" ".join(other.dims)}) in term {first[0].term.name}, '
                f'but {declared.role.value} of shape ({" ".join(declared.dims)}) in term {use.term.name}'
            )
        for ours, theirs in zip(declared.dims, other.dims, strict=True):
            self._tie(use.key(ours), first[0].key(theirs))

    def _root(self, key: str) -> str:
        while key in self._same:
            key = self._same[key]
        return key

    def _tie(self, a: str, b: str) -> None:
        a, b = self._root(a), self._root(b)
        if a == b:
            return
        if a.isdigit() and b.isdigit():
            raise ValueError(f'two terms need {a} and {b} for the same dimension')
        # a number represents its equivalence class
        if a.isdigit():
            self._same[b] = a
        else:
            self._same[a] = b

    def _chosen_names(self) -> dict[str, str]:
        """A name for each distinct dimension: the symbol of its first use, numbered if it is taken."""
        names: dict[str, str] = {}
        for use in self._uses:
            for symbol in (*use.declared.dims, *spec_of(use.term.loss).sizes(use.term.loss)):
                root = self._root(use.key(symbol))
                plain = root.rpartition('.')[2]
                count = 1 + sum(name.rstrip('0123456789') == plain for name in names.values())
                names.setdefault(root, plain if root.isdigit() or count == 1 else f'{plain}{count}')
        return names

    def _name(self, use: TermInput, symbol: str) -> str:
        return self._names[self._root(use.key(symbol))]

    def _joined(self, name: str, uses: Sequence[TermInput]) -> Input:
        """An input of the objective, as its first use declares it but in the objective's dimensions."""
        first = uses[0]
        declared, loss = first.declared, first.term.loss
        return replace(
            declared,
            name=name,
            shape=' '.join(self._name(first, symbol) for symbol in declared.dims),
            classes=' '.join(self._name(first, symbol) for symbol in declared.classes.split()),
            broadcasts=tuple(self._name(first, symbol) for symbol in declared.broadcasts),
            optional=False,
            differentiable=any(use.declared.differentiable for use in uses),
            ignore=lambda _: declared.ignore(loss),
            when=lambda _: True,
            aliases=tuple({known for use in uses for known in (use.declared.name, *use.declared.aliases)} - {name}),
        )
