"""Python code in a process that has imported nothing yet."""

import os
import subprocess
import sys
from pathlib import Path

import lossreg

HOME = Path(lossreg.__file__).parents[1]


def run_python(code, *arguments, folders=(), cwd=None, **environment):
    """What a fresh interpreter prints, in which the code must raise nothing and lossreg must warn of nothing.

    Args:
        code: what it runs.
        arguments: the rest of ``sys.argv``.
        folders: where it imports from, besides where this lossreg is.
        cwd: the folder it runs in.
        environment: further variables.
    """
    path = os.pathsep.join(map(str, [HOME, *folders]))
    done = subprocess.run(
        [sys.executable, '-W', 'error::UserWarning', '-c', code, *map(str, arguments)],
        capture_output=True, text=True, timeout=300, cwd=cwd, env={**os.environ, 'PYTHONPATH': path, **environment},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout
