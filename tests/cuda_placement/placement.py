"""Prints where ONNX Runtime's CUDA provider would run the nodes of our files, and records its kernels.

Fails if a node has no CUDA kernel or something is copied to the host: the device would wait for either.
See ``run.sh``, which calls it.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))  # the folder of the tests' modules

Row = dict[str, Any]
"""The output of ``sessions.py`` for one file, and ``on_data``."""


def placements(files: Path, stand_ins: str) -> list[Row]:
    """A row for each file, from a process that loads the stand-ins for CUDA's libraries."""
    command = [sys.executable, str(HERE / 'sessions.py'), str(files)]
    done = subprocess.run(command, env={**os.environ, 'LD_LIBRARY_PATH': stand_ins}, stdout=subprocess.PIPE, check=True)
    rows: list[Row] = json.loads(done.stdout)
    for row in rows:
        row['on_data'] = on_data((files / f'{row["file"]}.onnx').read_bytes(), {name for _, name in row['cpu']})
    return rows


def kinds_with_kernel(files: Path, rows: Sequence[Row]) -> Iterator[str]:
    """The kinds of nodes in the files that have a kernel."""
    from cuda_placement.kernels import typed_nodes

    for row in rows:
        data = (files / f'{row["file"]}.onnx').read_bytes()
        yield from (kind for name, kind in typed_nodes(data) if name not in row['without_kernel'])


def on_data(data: bytes, names: Collection[str]) -> list[str]:
    """The operators of the named nodes that compute with the values of inputs, not only with their sizes.

    ONNX Runtime puts a node on the CPU if each of its inputs comes from there, is an input of the file or is a small
    constant. An input of the file, however large, must then be on the CPU, which no copy in the graph shows.
    """
    import onnx

    graph = onnx.shape_inference.infer_shapes(onnx.load_from_string(data)).graph
    is_large = {
        v.name for v in (*graph.input, *graph.value_info) if any(d.dim_param for d in v.type.tensor_type.shape.dim)
    }
    given, found = {value.name for value in graph.input}, []
    for node in graph.node:
        if node.op_type not in ('Shape', 'Size') and not given.isdisjoint(node.input):
            given.update(node.output)
            if node.name in names and not (given & is_large).isdisjoint(node.input):
                found.append(node.op_type)
    return found


def table(rows: Sequence[Row]) -> str:
    """One line per file, ordered by the number of copies. ``on data`` counts nodes on the CPU: see :func:`on_data`."""
    heads = f'{"on CUDA":>8} {"on the CPU":>11} {"on data":>8} {"to host":>8} {"from host":>10}'
    title = f'{"file":60} {heads}  without a kernel'
    lines = (
        f'{row["file"]:60} {row["cuda"]:8} {len(row["cpu"]):11} {len(row["on_data"]):8} {row["to_host"]:8}'
        f' {row["from_host"]:10}'
        f'  {" ".join(sorted(set(row["no_kernel"])))}'.rstrip()
        for row in sorted(rows, key=lambda row: (row['to_host'], row['from_host'], row['file']))
    )
    return '\n'.join([title, *lines])


def summary(rows: Sequence[Row]) -> str:
    """The figures of ``docs/cuda.md``, for losses and for training steps."""
    steps = [row for row in rows if row['file'].startswith('step.')]
    return '\n'.join(
        f'{name}: {_summary(chosen)}'
        for name, chosen in (('losses', [row for row in rows if row not in steps]), ('training steps', steps))
    )


def _summary(rows: Sequence[Row]) -> str:
    sizes = [row['cuda'] + len(row['cpu']) for row in rows]
    copies = [row['from_host'] for row in rows]
    on_cpu = Counter(op for row in rows for op, _ in row['cpu'])
    on_data = Counter(op for row in rows for op in row['on_data'])
    return (
        f'{len(rows)} files; {sum(not row["no_kernel"] for row in rows)} have a CUDA kernel for every node, '
        f'{sum(row["to_host"] == 0 for row in rows)} copy nothing to the host; '
        f'{median(len(row["cpu"]) for row in rows):g} of {median(sizes):g} nodes on the CPU (medians), '
        f'{median(copies):g} copies from the host (median), {min(copies)} to {max(copies)}, none in {copies.count(0)}; '
        f'on the CPU: {_counts(on_cpu)}; of these on data, in {sum(bool(row["on_data"]) for row in rows)} files: '
        f'{_counts(on_data)}'
    )


def _counts(operators: Counter[str]) -> str:
    return ', '.join(f'{op} {count}' for op, count in operators.most_common(12)) or 'none'


def main() -> int:
    """Exports the files, and prints and records their placement."""
    parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
    parser.add_argument('stand_ins', help='the folder of the stand-ins for the CUDA libraries')
    parser.add_argument('--json', type=Path, help='where the rows go as JSON too')
    options = parser.parse_args()

    import onnxruntime
    from cuda_placement.files import write
    from cuda_placement.kernels import record

    with TemporaryDirectory() as folder:
        files = Path(folder)
        write(files)
        rows = placements(files, options.stand_ins)
        record(onnxruntime.__version__, kinds_with_kernel(files, rows))
    if options.json:
        options.json.write_text(json.dumps({'schema': 1, 'onnxruntime': onnxruntime.__version__, 'rows': rows}))
    print(f'onnxruntime {onnxruntime.__version__}', table(rows), summary(rows), sep='\n')
    return 1 if any(row['no_kernel'] or row['to_host'] for row in rows) else 0


if __name__ == '__main__':
    sys.exit(main())
