"""Creates a session on the CUDA provider for each ONNX file in a folder and prints as JSON where its nodes would run.

It needs only onnxruntime and the stubs for CUDA's libraries: see ``run.sh``. Nothing is computed.
"""

from __future__ import annotations

import json
import os
import re
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import onnxruntime
from onnxruntime import GraphOptimizationLevel, InferenceSession, SessionOptions

ON_PROVIDER = re.compile(r'(All nodes|Node\(s\)) placed on \[(\w+)\]\. Number of nodes: (\d+)$')
PLACED = re.compile(r'VerifyEachNodeIsAssignedToAnEp\]   (\w+) \((.*)\)$')
MISSING = re.compile(r'kernel not found in registries for Op type: (\w+) node name: (.*)$')
VERBOSE = 0


def logged(create: Callable[[], InferenceSession]) -> tuple[InferenceSession, list[str]]:
    """A session and the log of its creation, which ONNX Runtime writes directly to the file descriptor."""
    kept = os.dup(2)
    with tempfile.TemporaryFile() as log:
        os.dup2(log.fileno(), 2)
        try:
            session = create()
        finally:
            os.dup2(kept, 2)
            os.close(kept)
        log.seek(0)
        return session, log.read().decode().splitlines()


def session_log(file: Path, level: GraphOptimizationLevel) -> list[str]:
    """The log of the creation of a session.

    Raises:
        RuntimeError: the provider does not load.
    """
    options = SessionOptions()
    options.log_severity_level, options.graph_optimization_level = VERBOSE, level
    options.intra_op_num_threads = 1
    session, log = logged(lambda: InferenceSession(file, options, providers=['CUDAExecutionProvider']))
    if session.get_providers()[0] != 'CUDAExecutionProvider':
        raise RuntimeError('\n'.join(['the CUDA provider does not load', *log[-20:]]))
    return log


def placement(file: Path) -> dict[str, object]:
    """The nodes of one file by the place where they run, after ONNX Runtime's own graph optimisations.

    ``cpu`` holds operators and names. Only ``without_kernel`` refers to the graph as it is in the file, by name.
    """
    log = session_log(file, GraphOptimizationLevel.ORT_ENABLE_ALL)
    nodes: dict[str, list[tuple[str, str]]] = {'CPUExecutionProvider': [], 'CUDAExecutionProvider': []}
    where, unnamed = '', 0
    for line in log:
        if found := ON_PROVIDER.search(line):
            where = found[2]
            if found[1] == 'All nodes':
                assert where == 'CUDAExecutionProvider', f'{file.name} has nothing on CUDA'
                unnamed += int(found[3])
        elif found := PLACED.search(line):
            nodes[where].append((found[1], found[2]))
    cpu, cuda = nodes.values()
    assert cuda or unnamed, f'onnxruntime {onnxruntime.__version__} writes its log otherwise'
    copies = {copy: sum(op == copy for op, _ in cuda) for copy in ('MemcpyToHost', 'MemcpyFromHost')}
    return {
        'file': file.stem,
        'cuda': unnamed + len(cuda) - sum(copies.values()),
        'cpu': cpu,
        'to_host': copies['MemcpyToHost'],
        'from_host': copies['MemcpyFromHost'],
        'no_kernel': [found[1] for line in log if (found := MISSING.search(line))],
        'without_kernel': [
            found[2]
            for line in session_log(file, GraphOptimizationLevel.ORT_DISABLE_ALL)
            if (found := MISSING.search(line))
        ],
    }


if __name__ == '__main__':
    print(json.dumps([placement(file) for file in sorted(Path(sys.argv[1]).glob('*.onnx'))]))
