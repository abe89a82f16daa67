"""The command line: ``lossreg`` and ``python -m lossreg``."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Sequence

from lossreg.cli import parser
from lossreg.errors import LossregError


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit code. A user's mistake is reported in one line on stderr."""
    try:
        return _run(arguments)
    except LossregError as error:
        print(f'lossreg: {error}', file=sys.stderr)
        return error.exit_code
    except BrokenPipeError:
        # the reader, such as `head`, is gone
        _forget_output()
        return 0
    except OSError as error:
        _forget_output()
        what = f'{error.filename}: ' if error.filename else 'cannot write the output: '
        print(f'lossreg: {what}{error.strerror or error}', file=sys.stderr)
        return LossregError.exit_code
    except KeyboardInterrupt:
        print('lossreg: interrupted', file=sys.stderr)
        return 130


def _run(arguments: Sequence[str] | None) -> int:
    try:
        options = parser().parse_args(arguments)
        code: int = options.run(options)
    finally:  # after `--help` too: a full disk must be noticed here, not when the interpreter exits
        sys.stdout.flush()
    return code


def _forget_output() -> None:
    """Discards buffered output, which the interpreter would try to write again when it exits."""
    with contextlib.suppress(OSError, ValueError):  # stdout has no file descriptor in tests
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == '__main__':
    sys.exit(main())
