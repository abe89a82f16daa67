"""Mutation tests: which faults are planted, which commands look for them, and what counts as killed."""

import ast
import json
from pathlib import Path

import pytest
from interpreter import run_python
from mutants.__main__ import sample_of, strata_of
from mutants.commands import Commands
from mutants.mutations import mutations_of

ROOT = Path(__file__).parents[1]


def planted(source):
    """The mutated line of each mutation, by operator."""
    return [(mutation.operator, mutation.lines(source)[1]) for mutation in mutations_of('x.py', source)]


@pytest.mark.parametrize(
    ('line', 'mutations'),
    [
        ('a < b', [('compare', '(a <= b)')]),
        ('a == b', [('compare', '(a != b)')]),
        ('a is None', [('compare', '(a is not None)')]),
        ('a + b', [('arithmetic', '(a - b)')]),
        ('a * b / c', [('arithmetic', '(a / b) / c'), ('arithmetic', '(a * b * c)')]),
        ('a and b', [('boolean', '(a or b)')]),
        ('not a', [('unary', '(a)')]),
        ('[0, 2.0, 0.0, True]', [('constant', f'[{n}]') for n in ('1, 2.0, 0.0, True', '0, 2.2, 0.0, True')]
         + [('constant', f'[{n}]') for n in ('0, 2.0, 1.0, True', '0, 2.0, 0.0, False')]),
        ('x = a.clamp(lo)', [('call', 'x = (a)')]),
        ('x = torch.abs(a)', [('call', 'x = (a)')]),
        ('x = keep(a, b)', [('call', 'x = (a)')]),
        ('x = torch.where(a, b, c)', [('where', 'x = torch.where(a, c, b)')]),
        ('raise ValueError(1)', [('raise', 'pass')]),
        ('a += b', [('statement', 'pass')]),
        ('check(a)', [('statement', 'pass')]),
        ('def f(a, k=0): return a', [('constant', 'def f(a, k=1): return a'), ('return', 'def f(a, k=0): return k')]),
    ],
)  # fmt: skip
def test_what_is_planted(line, mutations):
    assert planted(line) == mutations


@pytest.mark.parametrize(
    'source',
    [
        '"""Text."""',
        "__all__ = ['a', 1]",
        'x: Literal[1]',
        '@cache(1)\ndef f(a: Literal[1]) -> Literal[1]: return a',
        'Loss.spec = Spec(tolerance=1e-3)',
        "x = f'{1 + a}'",
        "x = 'a' + b",
        'if TYPE_CHECKING:\n    x = 1',
        "if __name__ == '__main__':\n    main()",
        'class A:\n    def __init__(self):\n        super().__init__(a)',
    ],
)
def test_what_is_left_alone(source):
    assert not planted(source)


def test_mutations_of_a_file_differ_and_compile():
    source = (ROOT / 'lossreg' / 'compare.py').read_text()
    mutations = mutations_of('lossreg/compare.py', source)
    assert len(mutations) > 30
    assert len({mutation.id for mutation in mutations}) == len(mutations)
    trees = {ast.dump(ast.parse(mutation.plant(source))) for mutation in mutations}
    assert len(trees) == len(mutations)
    assert ast.dump(ast.parse(source)) not in trees


def test_a_sample_is_stratified_and_comes_of_its_seed():
    strata = strata_of('lossreg/')
    assert {'arith', 'ops', 'compare', 'device', 'pose', 'classification'} <= strata.keys()
    chosen = sample_of(strata, 10 * len(strata), seed=0)
    assert {list(chosen.values()).count(stratum) for stratum in strata} == {10}
    assert sample_of(strata, 10 * len(strata), seed=0) == chosen
    assert sample_of(strata, 10 * len(strata), seed=1).keys() != chosen.keys()
    few = sample_of({'a': list(chosen)[:3], 'b': list(chosen)[3:]}, 20, seed=0)
    assert sorted(few.values()) == 3 * ['a'] + 17 * ['b']


def test_commands_begin_with_the_cheapest():
    commands = Commands(ROOT, {'lossreg/ops/masks.py': {line: ['DiceLoss', 'FocalLoss'] for line in range(100)}})

    def commands_of(path):
        return [' '.join(command) for command in commands.of(strata_of(path).popitem()[1][-1])]

    check, *others = commands_of('lossreg/losses/pose/wing_loss.py')
    assert check == 'lossreg check WingLoss --backend eager'
    assert others[0].startswith('pytest tests/')
    assert others[0].endswith('-k [WingLoss]')
    assert any('tests/test_pose.py::test_coordinates_by_hand' in command for command in others)
    assert others[-2].startswith('pytest tests/test_losses.py::test_eager[WingLoss] ')
    assert 'tests/test_losses.py::test_artefacts[WingLoss]' in others[-2]
    assert others[-1].endswith('-k not [')
    assert commands_of('lossreg/ops/masks.py')[0] == 'lossreg check DiceLoss --backend eager'
    device = commands_of('lossreg/device.py')
    assert {'pytest tests/test_train_step.py', 'pytest tests/test_step_files.py'} <= set(device)
    assert 'pytest tests/test_compare.py' in commands_of('lossreg/compare.py')[:2]


RUN = """
import json, sys
from pathlib import Path
from mutants.forks import Task, run

tests = [('pytest', 'test_it.py')]
tasks = [
    Task('as it is', tests),
    Task('wrong', tests, 'it.py', 'X = 2'),
    Task('broken', tests, 'it.py', 'X ='),
    Task('dead', tests, 'it.py', 'import os; os.abort()'),
    Task('found later', [*tests, ('it', 'check')], 'it.py', 'X = 1.0'),
]
found = {task.name: [outcome.status, *outcome.command] for task, outcome in run(tasks, Path(sys.argv[1]), 2)}
print(json.dumps(found))
"""


def test_a_command_that_fails_kills(tmp_path):
    original = tmp_path / 'original'
    original.mkdir()
    (original / 'it.py').write_text('X = 1')
    (original / 'test_it.py').write_text('from it import X\n\ndef test_one():\n    assert X == 1\n')
    found = json.loads(run_python(RUN, original, folders=[ROOT / 'tests']))
    assert found == {
        'as it is': ['survived'],
        'wrong': ['killed', 'pytest', 'test_it.py::test_one'],
        'broken': ['killed', 'pytest', 'test_it.py'],
        'dead': ['killed', 'pytest', 'test_it.py'],
        'found later': ['killed', 'it', 'check'],
    }
    assert list(tmp_path.iterdir()) == [original]
