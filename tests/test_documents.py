"""Generated documents are up to date, and every loss has what the house rules ask for."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from lossreg.registry import load_losses

ROOT = Path(__file__).parent.parent


def test_generated_documents_are_up_to_date():
    result = subprocess.run([sys.executable, 'docs/generate.py', '--check'], cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


def test_python_in_the_readme_runs(tmp_path):
    """The two snippets that belong together: a file is exported, then run."""
    snippets = re.findall(r'```python\n(.*?)```', (ROOT / 'README.md').read_text(), re.S)
    code = '\n'.join(s for s in snippets if s.startswith(('import torch', 'import numpy')))
    assert 'lossreg.export(' in code
    assert 'InferenceSession(path)' in code
    subprocess.run([sys.executable, '-c', f'{code}\nassert gradient.shape == (2, 4)'], cwd=tmp_path, check=True)


@pytest.mark.parametrize('cls', load_losses().values(), ids=lambda cls: cls.__name__)
def test_docstrings_are_complete(cls):
    missing = [s for s in ('Args:', 'Shapes:', 'Raises:', 'Reference:') if s not in (cls.__doc__ or '')]
    assert not missing
