"""Runs Python code in another process that has imported nothing, or nothing of lossreg."""

import json
import os
import subprocess
import sys
from pathlib import Path

import lossreg

HOME = Path(lossreg.__file__).parents[1]
PYTHON = (sys.executable, '-W', 'error::UserWarning')


def run_python(code, *arguments, folders=(), cwd=None, **environment):
    """The output of code in a fresh interpreter; it must neither raise nor warn.

    Args:
        code: the code.
        arguments: the rest of ``sys.argv``.
        folders: further folders to import from, besides that of this lossreg.
        cwd: the folder it runs in.
        environment: further environment variables.
    """
    path = os.pathsep.join(map(str, [HOME, *folders]))
    done = subprocess.run(
        [*PYTHON, '-c', code, *map(str, arguments)],
        capture_output=True, text=True, timeout=300, cwd=cwd, env={**os.environ, 'PYTHONPATH': path, **environment},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


FORK = """
import json, os, sys
import torch, mmengine.config, mmengine.registry
for line in sys.stdin:
    job = json.loads(line)
    child = os.fork()
    if not child:
        for at, name in ((1, 'out'), (2, 'err')):
            os.dup2(os.open(job[name], os.O_WRONLY | os.O_CREAT | os.O_TRUNC), at)
        sys.argv[1:], sys.path[:0], sys.stdin = job['arguments'], job['folders'], None
        os.chdir(job['folder'])
        status = 1
        try:
            exec(compile(job['code'], '<code>', 'exec'), {'__name__': '__main__'})
            status = 0
        except BaseException:
            sys.excepthook(*sys.exc_info())
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


class Forks:
    """Runs code in forks of one interpreter that has imported only torch and mmengine, which takes seconds."""

    def __init__(self, folder):
        self._folder = folder
        environment = {**os.environ, 'PYTHONPATH': str(HOME)}
        self._process = subprocess.Popen(
            [*PYTHON, '-c', FORK], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )

    def __call__(self, code, *arguments, folders=()):
        """The output of the code, which must neither raise nor warn."""
        out, err = self._folder / 'out', self._folder / 'err'
        job = {
            'code': code, 'arguments': list(map(str, arguments)), 'folders': list(map(str, folders)),
            'folder': str(self._folder), 'out': str(out), 'err': str(err),
        }  # fmt: skip
        print(json.dumps(job), file=self._process.stdin, flush=True)
        status = self._process.stdout.readline()
        assert status == '0\n', err.read_text()
        return out.read_text()

    def close(self):
        """Ends the interpreter."""
        self._process.communicate()
