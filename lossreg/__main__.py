"""The command line: ``lossreg`` and ``python -m lossreg``."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from lossreg.cli import parser
from lossreg.errors import LossregError


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit code; a user's mistake is one line on stderr."""
    options = parser().parse_args(arguments)
    try:
        code: int = options.run(options)
        sys.stdout.flush()
    except LossregError as error:
        print(f'lossreg: {error}', file=sys.stderr)
        return error.exit_code
    except BrokenPipeError:
        # the reader, such as `head`, has gone: nothing is left to say
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        print('lossreg: interrupted', file=sys.stderr)
        return 130
    return code


if __name__ == '__main__':
    sys.exit(main())
