"""The pages: generated ones are up to date, links are not broken, and examples in pages and docstrings run."""

import ast
import doctest
import inspect
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from failures import Failures

from lossreg.functional import functions
from lossreg.registry import load_losses
from lossreg.spec import family_of, spec_of

ROOT = Path(__file__).parent.parent
PAGES = sorted([*ROOT.glob('*.md'), *(ROOT / 'docs').glob('*.md'), *(ROOT / 'tests').glob('*.md')])
FENCED = re.compile(r'^```.*?^```$', re.S | re.M)


def prose_of(page: Path) -> str:
    """A page without its code blocks."""
    return FENCED.sub('', page.read_text('utf-8'))


def snippets_of(page: str, language: str = 'python') -> list[str]:
    """The code blocks of a page."""
    return re.findall(rf'^```{language}\n(.*?)^```$', (ROOT / page).read_text('utf-8'), re.S | re.M)


def run(*command: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Runs a command of this Python, which can import this lossreg and modules in ``cwd``."""
    environment = {**os.environ, 'PYTHONPATH': os.pathsep.join([str(cwd), str(ROOT)])}
    return subprocess.run([sys.executable, *command], cwd=cwd, capture_output=True, text=True, env=environment)


# Pages


def test_generated_documents_are_up_to_date():
    result = run('docs/generate.py', '--check', cwd=ROOT)
    assert result.returncode == 0, result.stderr


def anchors_of(text: str) -> set[str]:
    """The anchors that GitHub gives to the headings of a page: words and hyphens, numbered if repeated."""
    anchors: list[str] = []
    for heading in re.findall(r'^#{1,6} (.*)$', text, re.M):
        plain = re.sub(r'[^\w -]', '', heading.strip().lower()).replace(' ', '-')
        repeated = sum(re.fullmatch(rf'{re.escape(plain)}(-\d+)?', anchor) is not None for anchor in anchors)
        anchors.append(f'{plain}-{repeated}' if repeated else plain)
    return set(anchors)


def broken_links(page: Path, text: str) -> list[str]:
    """The links of a page to files and headings of this repository that do not exist."""
    broken = []
    for target in re.findall(r'\]\(([^)\s]+)\)', text):
        if target.startswith(('http://', 'https://')):
            continue
        path, _, anchor = target.partition('#')
        file = (page.parent / path).resolve() if path else page
        if not file.exists() or (anchor and anchor not in anchors_of(prose_of(file))):
            broken.append(target)
    return broken


@pytest.mark.parametrize('page', PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    assert broken_links(page, prose_of(page)) == []


@pytest.mark.parametrize('link', ['docs/no_such_page.md', '#no-such-heading', 'docs/losses.md#no-such-family'])
def test_a_broken_link_would_be_found(link):
    page = ROOT / 'README.md'
    assert broken_links(page, f'[good](docs/losses.md#metric-learning) and [bad]({link})') == [link]


def test_anchors_are_those_of_github():
    text = '# From C++\n## 1. A `code_name`\n## What runs code, and what does not\n## From C++\n'
    assert anchors_of(text) == {'from-c', '1-a-code_name', 'what-runs-code-and-what-does-not', 'from-c-1'}


PATH = re.compile(r'`((?:lossreg|tests|docs|configs|benchmarks|export)/[\w/.-]*)(?:::(\w+))?`')


def missing_places(text: str) -> list[str]:
    """The paths in a text that do not exist, and the tests that are not in their file."""
    missing = []
    for path, test in PATH.findall(text):
        file = ROOT / path
        if not file.exists() or (test and test not in names_of_tests(file)):
            missing.append(f'{path}::{test}' if test else path)
    return missing


def names_of_tests(file: Path) -> set[str]:
    """The names of the tests in a file."""
    tree = ast.parse(file.read_text('utf-8'))
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef) and node.name.startswith('test_')}


@pytest.mark.parametrize('page', PAGES, ids=lambda page: page.name)
def test_files_and_tests_named_are_there(page):
    example = {'adding.md': 'cauchy_loss.py'}.get(page.name, '')  # the files that a reader writes
    missing = [place for place in missing_places(prose_of(page)) if not example or not place.endswith(example)]
    assert missing == []


def test_a_test_that_is_gone_would_be_found():
    here = 'tests/test_documents.py'
    text = f'`{here}::test_links_lead_somewhere`, `{here}::test_links`, `lossreg/nowhere.py`'
    assert missing_places(text) == [f'{here}::test_links', 'lossreg/nowhere.py']


def test_every_point_of_the_contract_has_a_test():
    text = (ROOT / 'docs' / 'contract.md').read_text('utf-8')
    points = re.findall(r'^## (\d)\.', text, re.M)
    rows = re.findall(r'^\| (\d) \|.*\|$', text, re.M)
    assert len(points) == 9
    assert set(points) == set(rows)


def test_code_in_differences_keeps_its_case():
    text = (ROOT / 'docs' / 'differences.md').read_text('utf-8')
    assert not re.findall(
        r'^(?:\* |### )`?[A-Z]\w*[=_]\w+', re.sub(r'^### \w+ and \w+\.\w+$', '', text, flags=re.M), re.M
    )
    for cls in load_losses().values():
        for difference in spec_of(cls).differences:
            first = difference.what.split()[0].strip(',:')
            if re.search(r'[=_]', first):
                assert f'`{first}' in text, difference.what


def test_the_readme_is_short():
    assert (ROOT / 'README.md').stat().st_size <= 12 * 1024


# Code in pages


def test_python_in_the_readme_runs(tmp_path):
    """The two snippets that belong together: one exports a file, the other runs it."""
    code = '\n'.join(s for s in snippets_of('README.md') if s.startswith(('import torch', 'import numpy')))
    assert 'lossreg.export(' in code
    assert 'InferenceSession(path)' in code
    result = run('-c', f'{code}\nassert gradient.shape == (2, 4)', cwd=tmp_path)
    assert result.returncode == 0, result.stderr


@pytest.fixture
def package(tmp_path):
    """The package of docs/adding.md, as written there."""
    loss, oracle, *_ = snippets_of('docs/adding.md')
    for folder, text in (('losses', loss), ('oracles', oracle)):
        file = tmp_path / 'mylosses' / folder / 'cauchy_loss.py'
        file.parent.mkdir(parents=True)
        file.write_text(text, 'utf-8')
    return tmp_path


CHECK = ('-m', 'lossreg', 'check', 'CauchyLoss', '--import', 'mylosses.losses.cauchy_loss', '--backend', 'eager')


def test_the_loss_of_adding_passes(package):
    assert 'CauchyLoss' not in load_losses(), 'the page needs a loss that lossreg does not have'
    result = run(*CHECK, cwd=package)
    assert result.returncode == 0, result.stdout + result.stderr


def test_the_loss_of_adding_would_fail_with_another_formula(package):
    file = package / 'mylosses' / 'losses' / 'cauchy_loss.py'
    text = file.read_text('utf-8')
    assert text.count('.square())') == 1
    file.write_text(text.replace('.square())', '.abs())'), 'utf-8')
    assert run(*CHECK, cwd=package).returncode == 1


def test_the_entry_point_of_adding_is_found(package):
    (toml,) = snippets_of('docs/adding.md', 'toml')
    ((group, name, module),) = re.findall(r'entry-points\."(.*?)"\]\n(\w+) = "(.*?)"', toml)
    info = package / 'mylosses-0.1.0.dist-info'
    info.mkdir()
    (info / 'METADATA').write_text('Metadata-Version: 2.1\nName: mylosses\nVersion: 0.1.0\n', 'utf-8')
    (info / 'entry_points.txt').write_text(f'[{group}]\n{name} = {module}\n', 'utf-8')
    result = run('-m', 'lossreg', 'export', 'CauchyLoss', '--grad', cwd=package)
    assert result.returncode == 0, result.stderr
    assert (package / 'CauchyLoss.default.grad.onnx').exists()


# Docstrings


def test_docstrings_are_complete():
    with Failures() as failures:
        for name, cls in load_losses().items():
            with failures.of(name):
                documented = [cls, cls.forward, *cls.spec.functions, inspect.getmodule(cls)]
                assert all(inspect.getdoc(x) and x.__doc__ for x in documented)
                assert not [s for s in ('Args:', 'Shapes:', 'Raises:', 'Reference:') if s not in cls.__doc__]
                assert cls.spec.references


def examples() -> Iterator[tuple[str, doctest.DocTest]]:
    """The examples in docstrings of losses and functional forms, with the family of each."""
    finder = doctest.DocTestFinder(recurse=False)
    for thing in {*functions().values(), *load_losses().values()}:
        module = sys.modules[thing.__module__]
        for test in finder.find(thing, thing.__name__, module, {**vars(module), 'torch': torch}):
            if test.examples:
                yield family_of(thing), test


EXAMPLES = sorted(examples(), key=lambda example: example[1].name)


@pytest.mark.parametrize('test', [test for _, test in EXAMPLES], ids=lambda test: test.name)
def test_examples_in_docstrings(test):
    output: list[str] = []
    runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE)
    runner.run(test, out=output.append)
    assert not runner.failures, ''.join(output)


def test_every_family_has_an_example():
    assert {family for family, _ in EXAMPLES} == {family_of(cls) for cls in load_losses().values()}
