"""The coding rules for losses, checked in their sources. Each rule is shown to fire on a planted line."""

import ast
import re
import subprocess
from collections import defaultdict
from collections.abc import Callable, Iterator
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest
from failures import Failures

import lossreg
from lossreg.registry import build_loss, load_losses
from lossreg.spec import family_of, spec_of

ROOT = Path(__file__).parents[1]
PACKAGE = Path(lossreg.__file__).parent
LOSS_FILES = [path for path in sorted((PACKAGE / 'losses').rglob('*.py')) if path.name != '__init__.py']
SHARED_FILES = [*sorted((PACKAGE / 'ops').glob('*.py')), PACKAGE / 'arith.py']
ROOMS = ('arith', 'fused', 'options', 'metainfo', 'ops', 'spec', 'spec_parts', 'losses')

METHODS = {'masked_select', 'nonzero', 'item', 'tolist', 'new_tensor'}
BANNED_CALLS = METHODS | {
    'cross_entropy', 'nll_loss', 'binary_cross_entropy', 'binary_cross_entropy_with_logits', 'logsigmoid', 'ctc_loss',
    'multilabel_margin_loss', 'cdist', 'one_hot',
}  # fmt: skip
TORCH = {'torch', 'F', 'nn'}


def attribute(node: ast.AST) -> str:
    """``size`` of ``x.size(0)`` and of ``x.size``."""
    node = node.func if isinstance(node, ast.Call) else node
    return node.attr if isinstance(node, ast.Attribute) else ''


def functions(tree: ast.AST) -> Iterator[ast.FunctionDef]:
    return (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef))


def banned_calls(tree: ast.AST) -> Iterator[ast.AST]:
    """Calls that export wrongly or not at all, methods included. Functions of ours with such a name are allowed."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and node.attr in BANNED_CALLS:
            of_a_module = ast.unparse(node.value).split('.')[0] in TORCH
            if of_a_module or node.attr in METHODS:
                yield node


def data(tree: ast.AST) -> Iterator[ast.AST]:
    """``.data`` crashes the exporter."""
    return (node for node in ast.walk(tree) if isinstance(node, ast.Attribute) and node.attr == 'data')


def variadic_forward(tree: ast.AST) -> Iterator[ast.AST]:
    """``*args`` and ``**kwargs`` cannot be scripted, and hide the call."""
    return (f for f in functions(tree) if f.name == 'forward' and (f.args.vararg or f.args.kwarg))


def python_on_sizes_or_values(tree: ast.AST) -> Iterator[ast.AST]:
    """``if``, ``for``, ``max`` and ``min`` freeze the sizes or values that they depend on at export."""
    for node in ast.walk(tree):
        looked_at: list[ast.AST] = []
        if isinstance(node, (ast.If, ast.IfExp, ast.While, ast.Assert)):
            looked_at = [node.test]
        elif isinstance(node, (ast.For, ast.comprehension)):
            looked_at = [node.iter]
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ('max', 'min', 'bool'):
            looked_at = list(node.args)
        if any(_is_size_or_value(inner) for part in looked_at for inner in ast.walk(part)):
            yield node


def _is_size_or_value(node: ast.AST) -> bool:
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == 'len':
        return True
    if isinstance(node, ast.Call):
        return attribute(node) in ('size', 'numel', 'any', 'all', 'sum', 'max', 'min', 'mean', 'isnan', 'isfinite')
    return attribute(node) == 'shape'


def in_place(tree: ast.AST) -> Iterator[ast.AST]:
    """In-place writes modify the caller's tensors or break the graph."""
    for function in functions(tree):
        for node in ast.walk(function):
            called = ast.unparse(node.func) if isinstance(node, ast.Call) else ''
            # a constructor fills its own parameters
            method = '' if called.startswith('nn.init.') else called.rpartition('.')[2] if '.' in called else ''
            written = node.targets if isinstance(node, ast.Assign) else []
            if (
                (re.fullmatch(r'[a-z]\w*[a-z0-9]_', method) and method != 'requires_grad_')
                or isinstance(node, ast.AugAssign)
                or any(isinstance(target, ast.Subscript) for target in written)
            ):
                yield node


def membership_of_reduction(tree: ast.AST) -> Iterator[ast.AST]:
    """``reduction in ('mean', ...)`` does not script in every torch."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Compare) and isinstance(node.ops[0], (ast.In, ast.NotIn)):
            name = node.left.id if isinstance(node.left, ast.Name) else attribute(node.left)
            if 'reduction' in name:
                yield node


def boolean_selection(tree: ast.AST) -> Iterator[ast.AST]:
    """``x[y > 0]`` has a size that depends on values; ``keep`` and ``torch.where`` do not."""
    for function in functions(tree):
        masks = {
            target.id
            for node in ast.walk(function)
            if isinstance(node, ast.Assign) and _is_mask(node.value)
            for target in node.targets
            if isinstance(target, ast.Name)
        }
        for node in ast.walk(function):
            if isinstance(node, ast.Subscript):
                index = node.slice
                if _is_mask(index) or (isinstance(index, ast.Name) and index.id in masks):
                    yield node


def _is_mask(node: ast.AST) -> bool:
    if isinstance(node, ast.BinOp):
        return isinstance(node.op, (ast.BitAnd, ast.BitOr)) and (_is_mask(node.left) or _is_mask(node.right))
    return isinstance(node, ast.Compare) or (isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Invert))


CUMULATIVE = {'cumsum', 'cumprod', 'cummax', 'cummin', 'logcumsumexp'}


def cumulative_from_the_back(tree: ast.AST) -> Iterator[ast.AST]:
    """``cumsum(-1)`` is wrong in torch 2.13 if DTensor shards that dimension; a non-negative one is right."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and attribute(node) in CUMULATIVE:
            given = [*node.args, *(keyword.value for keyword in node.keywords)]
            if any(isinstance(value, ast.UnaryOp) and isinstance(value.op, ast.USub) for value in given):
                yield node


def union_by_bar(tree: ast.AST) -> Iterator[ast.AST]:
    """``Tensor | None`` does not script in torch 2.1; ``Optional[Tensor]`` does."""
    for function in functions(tree):
        arguments = [*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs]
        for annotation in filter(None, [function.returns, *(a.annotation for a in arguments)]):
            if any(isinstance(node, ast.BinOp) for node in ast.walk(annotation)):
                yield annotation


def unregistered_module(tree: ast.AST) -> Iterator[ast.AST]:
    """Every module is visibly registered, and is a plain ``nn.Module``."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef) and node.name.endswith('Loss'):
            decorators = [ast.unparse(d) for d in node.decorator_list]
            if decorators != ['LOSSES.register_module()'] or [ast.unparse(b) for b in node.bases] != ['nn.Module']:
                yield node


PLANTED: dict[Callable[[ast.AST], Iterator[ast.AST]], list[str]] = {
    banned_calls: [
        'F.cross_entropy(x, y)', 'torch.nn.functional.logsigmoid', 'torch.cdist(x, x)', 'F.one_hot(y, c)',
        'F.binary_cross_entropy_with_logits(x, t)', 'x.sum().item()', 'x.masked_select(m)',
    ],
    data: ['x.data', 'self.centers.data'],
    variadic_forward: ['def forward(self, *args): pass', 'def forward(self, x, **kwargs): pass'],
    python_on_sizes_or_values: [
        'if x.numel() == 0: pass', 'y = 1 if x.size(0) else 2', 'if x.shape[0] > 1: pass', 'if (x > 0).any(): pass',
        'max(x.numel(), 1)', 'for i in range(x.size(0)): pass', 'while len(x): pass', '[i for i in range(len(x))]',
        'assert x.sum() > 0',
    ],
    in_place: [
        f'def f(x):\n    {line}'
        for line in ('x.clamp_(min=0)', 'x[0] = 1', 'x += 1', 'x[0] -= 1', 'x.fill_(0)', 'x.index_fill_(0, i, 1)')
    ],
    membership_of_reduction: ["reduction in ('mean', 'sum')", "self.reduction not in ['none']"],
    boolean_selection: [
        f'def f(x):\n    {line}' for line in ('x[x > 0]', 'm = y == 1; x[m]', 'x[~m]', 'm = (a > 0) & b; x[m].sum()')
    ],
    cumulative_from_the_back: ['x.cumsum(-1)', 'torch.cumsum(x, -1)', 'x.logcumsumexp(dim=-2)'],
    union_by_bar: [
        'def f(x: Tensor | None): pass', 'def f(x) -> tuple[Tensor, Tensor | None]: pass', 'def f(*, x: int | str): x',
    ],
    unregistered_module: [
        'class ALoss(nn.Module): pass',
        '@LOSSES.register_module()\nclass ALoss(BaseModule): pass',
        "@LOSSES.register_module(name='B')\nclass ALoss(nn.Module): pass",
    ],
}  # fmt: skip
ALLOWED = """
@LOSSES.register_module()
class ALoss(nn.Module):
    def forward(self, x: Tensor, weight: Optional[Tensor]) -> Tensor:
        if weight is not None and x.dim() > 1 and self.reduction == 'mean':
            x = keep(x, weight != 0)
        loss = binary_cross_entropy_with_logits(x, x).cumsum(0) * self.class_weight[index]
        return loss.requires_grad_().sum() / torch.tensor(x.size(0)).clamp(min=1)
"""


each_rule = pytest.mark.parametrize('rule', PLANTED, ids=lambda rule: rule.__name__)


@cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def breaches(rule: Callable[[ast.AST], Iterator[ast.AST]], paths: list[Path]) -> list[str]:
    """Every place in these files that breaks a rule."""
    return [f'{path}:{node.lineno}: {ast.unparse(node)[:80]}' for path in paths for node in rule(parsed(path))]


@each_rule
def test_losses_keep_the_rules(rule):
    assert len(LOSS_FILES) > 200
    assert not breaches(rule, LOSS_FILES), rule.__doc__


@pytest.mark.parametrize('rule', [union_by_bar, cumulative_from_the_back], ids=lambda rule: rule.__name__)
def test_what_losses_share_keeps_the_rules_too(rule):
    assert len(SHARED_FILES) > 5
    assert not breaches(rule, SHARED_FILES), rule.__doc__


@each_rule
def test_rules_fire(rule):
    with Failures() as failures:
        for line in PLANTED[rule]:
            with failures.of(line):
                assert list(rule(ast.parse(line)))


@each_rule
def test_rules_let_pass_what_is_allowed(rule):
    assert not list(rule(ast.parse(ALLOWED)))


# Imports run one way

MAY_IMPORT = {
    'arith.py': set(),
    'options.py': {'arith', 'untrusted'},
    'metainfo.py': {'engine'},
    'errors.py': set(),
    'engine.py': {'errors'},
    'untrusted.py': {'engine', 'errors'},
    'spec.py': {'errors'},
    'fused': {'arith', 'fused'},
    'ops': {'arith', 'fused', 'options', 'ops'},
    'spec_parts': {'ops', 'spec', 'spec_parts'},
    'objective.py': {'registry', 'spec'},
    'losses': {
        'arith', 'hosts', 'losses', 'metainfo', 'objective', 'ops', 'options', 'registry', 'spec', 'spec_parts', 'walk',
    },
    'oracles': {'oracles'},
}  # fmt: skip
ABOVE_EXPORTERS = {'checks', 'losses', 'oracles', 'report', 'testing', 'bench', 'cli', 'commands', ''}
MUST_NOT_IMPORT = {
    'unit.py': ABOVE_EXPORTERS | {'exporters'},
    'exporters': ABOVE_EXPORTERS,
    'checks': ABOVE_EXPORTERS - {'checks'},
}


def imported_names(text: str) -> set[str]:
    """Such as ``lossreg.arith.upcast`` in ``from lossreg.arith import upcast``, anywhere in the text."""
    names = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, 'imports are absolute'
            names |= {f'{node.module}.{alias.name}' for alias in node.names}
    return {name for name in names if name.split('.')[0] == 'lossreg'}


def imported_parts(text: str) -> set[str]:
    """``arith`` for ``from lossreg.arith import upcast``, ``''`` for ``import lossreg``."""
    return {name.partition('.')[2].split('.')[0] for name in imported_names(text)}


@pytest.mark.parametrize('place', [*MAY_IMPORT, *MUST_NOT_IMPORT])
def test_imports_run_one_way(place):
    path = PACKAGE / place
    files = [path] if path.is_file() else sorted(path.rglob('*.py'))
    assert files
    for file in files:
        imported = imported_parts(file.read_text())
        assert imported <= MAY_IMPORT.get(place, imported), file
        assert not imported & MUST_NOT_IMPORT.get(place, set()), file


def test_imports_are_seen():
    assert imported_parts('from lossreg.checks.rows import Row') == {'checks'}
    assert imported_parts('def f():\n    from lossreg import exporters\n    import lossreg.checks') == {
        'exporters',
        'checks',
    }
    assert imported_parts('import torch, lossregister, lossreg') == {''}


def module_of(path: Path) -> str:
    return '.'.join(path.relative_to(PACKAGE.parent).with_suffix('').parts).removesuffix('.__init__')


def graph_of(rooms: tuple[str, ...]) -> dict[str, set[str]]:
    """The modules of these parts of the package, and those among them that each imports."""
    files = [path for path in PACKAGE.rglob('*.py') if module_of(path).partition('.')[2].split('.')[0] in rooms]
    modules = {module_of(path) for path in files}
    graph = {}
    for path in files:
        names = imported_names(path.read_text())
        graph[module_of(path)] = (names | {name.rpartition('.')[0] for name in names}) & modules
    return graph


def test_no_import_comes_back():
    order = list(TopologicalSorter(graph_of(ROOMS)).static_order())
    assert order.index('lossreg.arith') < order.index('lossreg.ops.reductions')
    assert order.index('lossreg.ops.reductions') < order.index('lossreg.losses.regression.l1_loss')


def are_one(loss: type, other: type) -> bool:
    """Whether a loss is another one with other options: a subclass, or one that shares a functional form."""
    return issubclass(loss, other) or bool(set(spec_of(loss).functions) & set(spec_of(other).functions))


def test_losses_import_losses_only_where_one_is_the_other():
    classes = defaultdict(list)
    for cls in load_losses().values():
        classes[cls.__module__].append(cls)
    imports = [(module, other) for module, others in graph_of(('losses',)).items() for other in others]
    assert imports
    assert not [
        (module, other)
        for module, other in imports
        if not any(are_one(a, b) for a in classes[module] for b in classes[other])
    ]


def test_which_losses_are_one():
    losses = load_losses()
    assert are_one(losses['L2Loss'], losses['MarginL2Loss'])
    assert not are_one(losses['MSELoss'], losses['L1Loss'])


def test_oracles_know_numpy_alone():
    for file in (PACKAGE / 'oracles').rglob('*.py'):
        tree = ast.parse(file.read_text())
        modules = {n.module for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)}
        modules |= {alias.name for n in ast.walk(tree) if isinstance(n, ast.Import) for alias in n.names}
        assert {str(m).split('.')[0] for m in modules} <= {
            'numpy',
            'collections',
            'typing',
            'lossreg',
            'math',
            'importlib',
            'pathlib',
            'yaml',
        }, file


# One loss: a source, a config, an oracle


def test_one_loss_one_config():
    with Failures() as failures:
        for name, cls in load_losses().items():
            with failures.of(name):
                path = ROOT / 'configs' / family_of(cls) / f'{cls.__module__.rpartition(".")[2]}.py'
                (statement,) = ast.parse(path.read_text()).body
                assert isinstance(statement, ast.Assign)
                assert ast.unparse(statement.targets[0]) == 'loss'
                assert ast.unparse(statement.value).startswith(f"dict(type='lossreg.{name}'")
                namespace: dict[str, object] = {}
                exec(path.read_text(), namespace)
                assert type(build_loss(namespace['loss'])) is cls


def test_every_config_and_oracle_belongs_to_a_loss():
    places = {f'{family_of(cls)}/{cls.__module__.rpartition(".")[2]}.py' for cls in load_losses().values()}
    configs = {p.relative_to(ROOT / 'configs').as_posix() for p in (ROOT / 'configs').rglob('*.py')}
    assert {p for p in configs if not p.startswith('recipes/')} == places
    oracles = {p.relative_to(PACKAGE / 'oracles').as_posix() for p in (PACKAGE / 'oracles').glob('*/*.py')}
    assert {p for p in oracles if not p.endswith('__init__.py')} == places


# Contents that must not be published

MACHINE_PATH = re.compile(r'(?<![\w./:-])/(?:home|Users|root|work|mnt|private)/\w+|[A-Z]:\\Users')


def test_no_path_of_a_machine_in_tracked_files():
    listed = subprocess.run(['git', 'ls-files', '-z'], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip('not a git checkout')
    files = [ROOT / name for name in listed.stdout.split('\0') if name]
    assert len(files) > 50
    found = {}
    for file in files:
        text = file.read_bytes().decode('utf-8', 'replace') if file.is_file() else ''
        if match := MACHINE_PATH.search(text):
            found[str(file)] = match[0]
    assert not found


@pytest.mark.parametrize(
    'text',
    [
        'open("/{}/somebody/x.py")'.format('home'),
        'C:\\{}\\me'.format('Users'),
    ],
)
def test_a_path_of_a_machine_would_be_found(text):
    assert MACHINE_PATH.search(text)
