"""Generated documents are up to date, and every loss has what the house rules ask for."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from lossreg.registry import load_losses
from lossreg.spec import family_of

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


@pytest.mark.parametrize('name', list(load_losses()))
def test_one_loss_one_file_one_config_one_oracle(name):
    cls = load_losses()[name]
    family, stem = family_of(cls), cls.__module__.rpartition('.')[2]
    assert (ROOT / 'lossreg' / 'oracles' / family / f'{stem}.py').exists()
    config = (ROOT / 'configs' / family / f'{stem}.py').read_text()
    assert config.startswith(f"loss = dict(type='lossreg.{name}'")
    for section in ('Args:', 'Shapes:', 'Raises:', 'Reference:'):
        assert section in (cls.__doc__ or ''), f'{name} documents no {section}'
