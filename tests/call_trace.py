"""Traces the calls of a command from a config to a file or to rows: the modules of lossreg it enters, and its climbs.

Run ``python tests/call_trace.py export`` or ``python tests/call_trace.py check``. It prints the modules in the order of
their first call, and the climbs: calls into a module that imports the caller's, which send a reader back up. Code that
runs at import is left out, and all modules of losses count as one place.
"""

import argparse
import ast
import contextlib
import io
import sys
import tempfile
from functools import cache
from pathlib import Path

from lossreg.__main__ import main as run_command

PACKAGE = Path(__file__).parents[1] / 'lossreg'

# the head of RTMPose, with our loss
CONFIG = """
default_scope = 'mmpose'
model = dict(
    type='TopdownPoseEstimator',
    head=dict(
        type='RTMCCHead',
        in_channels=1024,
        out_channels=17,
        loss=dict(type='lossreg.KLDiscretLoss', use_target_weight=True, beta=10.0, label_softmax=True),
    ),
)
"""

LOSS = 'the loss'
OF_LOSSES = ('losses', 'ops', 'fused', 'arith', 'oracles')
COMMANDS = {
    'export': ['--format', 'onnx', '--grad'],
    'check': ['--backend', 'eager', '--backend', 'ort-cpu'],
}


class CallTrace:
    """Records the modules entered, and the first function called from each module in each other one."""

    def __init__(self):
        self.modules = []
        self.calls = {}

    def observe(self, frame, event, argument):
        """A profile function: see ``sys.setprofile``."""
        place = place_of(frame)
        if event != 'call' or not place:
            return
        outer = list(callers(frame))
        if any(f.f_code.co_name == '<module>' and place_of(f) for f in [frame, *outer]):
            return
        if place not in self.modules:
            self.modules.append(place)
        caller = next(filter(None, map(place_of, outer)), place)
        if caller != place:
            self.calls.setdefault((caller, place), frame.f_code.co_qualname)

    def climbs(self):
        """The calls into a module that imports the caller's."""
        return {ends: function for ends, function in self.calls.items() if ends[0] in imported_by(ends[1])}


def callers(frame):
    """The callers of this frame, the nearest first."""
    while (frame := frame.f_back) is not None:
        yield frame


def place_of(frame):
    """The module that the code belongs to; '' if it is not lossreg's."""
    return place_named(frame.f_globals.get('__name__', ''))


def place_named(module):
    package, *parts = module.split('.')
    if package != 'lossreg':
        return ''
    return LOSS if parts and parts[0] in OF_LOSSES else module


@cache
def imported_by(place):
    """The places that one imports, at module level or in a function."""
    names = OF_LOSSES if place == LOSS else ['/'.join(place.split('.')[1:])]
    files = [file for name in names for file in files_of(PACKAGE / name, with_inner=place == LOSS)]
    nodes = [node for file in files for node in ast.walk(ast.parse(file.read_text()))]
    found = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    for node in nodes:
        for alias in node.names if isinstance(node, ast.ImportFrom) else ():
            inner = f'{node.module}.{alias.name}'
            found.add(
                inner if any(files_of(PACKAGE.parent / inner.replace('.', '/'), with_inner=False)) else node.module
            )
    return {place_named(name) for name in found}


def files_of(path, with_inner):
    if path.is_dir():
        return path.rglob('*.py') if with_inner else [path / '__init__.py']
    return [path.with_suffix('.py')] if path.with_suffix('.py').exists() else []


def trace_of(command):
    """The call trace of a command on the config."""
    trace = CallTrace()
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / 'rtmpose.py'
        config.write_text(CONFIG)
        out = ['--out', folder] if command == 'export' else []
        sys.setprofile(trace.observe)
        try:
            with contextlib.redirect_stdout(io.StringIO()):
                code = run_command([command, str(config), *COMMANDS[command], *out])
        finally:
            sys.setprofile(None)
    if code:
        sys.exit(f'lossreg {command} ended with exit code {code}')
    return trace


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
    parser.add_argument('command', choices=COMMANDS)
    command = parser.parse_args().command
    trace = trace_of(command)
    for number, place in enumerate(trace.modules, 1):
        print(f'{number:3} {place}')
    for (caller, place), function in trace.climbs().items():
        print(f'climb from {caller} to {place}: {function}')
    print(f'{command}: {len(trace.modules)} modules, {len(trace.climbs())} climbs, {len(trace.calls)} pairs that call')


if __name__ == '__main__':
    main()
