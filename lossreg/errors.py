"""Errors that a user can fix. Each names the cause and the fix; the command line prints it in one line.

Exit codes: 0 success; 1 a check failed; 2 wrong arguments, config, type, shape, label or path; 3 a required backend is
missing; 4 a valid but unsupported request.
"""


class LossregError(Exception):
    """Base of all errors that lossreg raises on purpose. ``exit_code`` is the exit code of the command line."""

    exit_code = 2


class ConfigError(LossregError):
    """A config, type name, argument or path that cannot be used."""


class CheckError(LossregError):
    """An artefact or loss that gives wrong numbers."""

    exit_code = 1


class MissingBackendError(LossregError):
    """A package, device or provider that the request needs is missing."""

    exit_code = 3


class MissingPackageError(MissingBackendError, ImportError):
    """A package that lossreg imports is not installed. It is also an ImportError."""


class DeclinedError(LossregError):
    """A valid request that lossreg does not support."""

    exit_code = 4


def first_line(error: BaseException) -> str:
    """The informative line of an error message: the last of a TorchScript traceback, else the first."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if not lines:
        return ''
    return next((line for line in reversed(lines) if line.startswith('builtins.')), lines[0])
