"""Errors a user can mend. Each names the cause and the mend; the command line prints it in one line.

Exit codes: 0 all well; 1 a check failed; 2 wrong arguments, config, type, shape, label or path; 3 a required
backend is missing; 4 a valid request that is declined.
"""


class LossregError(Exception):
    """Base of all errors lossreg raises on purpose. ``exit_code`` is what the command line returns."""

    exit_code = 2


class ConfigError(LossregError):
    """A config, type name, argument or path that cannot be used."""


class CheckError(LossregError):
    """An artefact or a loss that does not give the numbers it must."""

    exit_code = 1


class MissingBackendError(LossregError):
    """A package, device or provider that the request needs is not there."""

    exit_code = 3


class MissingPackageError(MissingBackendError, ImportError):
    """A package that lossreg imports is not installed. It is an ImportError, too."""


class DeclinedError(LossregError):
    """A valid request that lossreg does not serve."""

    exit_code = 4


def first_line(error: BaseException) -> str:
    """The telling line of an error message: the last of a TorchScript traceback, else the first."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if not lines:
        return ''
    return next((line for line in reversed(lines) if line.startswith('builtins.')), lines[0])
