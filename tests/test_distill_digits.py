"""The comparison in docs/training.md in short: both ways of training agree, and the command writes its plot."""

import json
import subprocess
import sys
from pathlib import Path

BENCHMARK = Path(__file__).parents[1] / 'benchmarks/distill_digits.py'


def test_a_short_run(tmp_path):
    out = tmp_path / 'digits'
    command = [sys.executable, '-W', 'ignore', BENCHMARK, '--out', out, '--steps', '60', '--json']
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    found = json.loads(run.stdout)
    assert found == json.loads((out / 'figures.json').read_text())
    assert found['teacher_accuracy'] > 95
    for name in ('SGD', 'AdamW'):
        losses = found[name]['torch_losses']
        assert len(losses) == len(found[name]['device_losses']) == found['steps'] == 60
        assert found[name]['largest_relative_difference'] < 1e-4
        assert losses[-1] < 0.8 * losses[0]
        assert abs(found[name]['device_accuracy'] - found[name]['torch_accuracy']) <= 0.5
    assert (out / 'curves.png').read_bytes().startswith(b'\x89PNG')
