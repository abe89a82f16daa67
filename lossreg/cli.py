"""The arguments of all commands. Heavy imports wait until a command runs, so that ``--help`` answers at once."""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeAlias

from lossreg.formats import BACKENDS, DEFAULT_OPSET, OLDEST_ONNXRUNTIME, SUFFIXES

EXIT_CODES = """\
exit codes: 0 ok; 1 a check failed; 2 wrong arguments, config, type, shape, label or path;
3 a required backend is missing; 4 a valid request that is declined"""

Run = Callable[[argparse.Namespace], int]


def parser() -> argparse.ArgumentParser:
    """The parser of the whole command line; it sets ``options.run`` to the chosen command."""
    top = argparse.ArgumentParser(
        prog='lossreg',
        description='OpenMMLab losses that leave Python: config in, verified TorchScript, ONNX or pt2 out.',
        epilog=EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    top.add_argument('--version', action=_Version, nargs=0, help='show the version and exit')
    commands = top.add_subparsers(title='commands', metavar='COMMAND', required=True)
    for add in (_list, _show, _export, _check, _migrate, _bench, _env):
        add(commands)
    return top


class _Version(argparse.Action):
    """Looks up the version only on request."""

    def __call__(self, parser: argparse.ArgumentParser, *unused: object) -> None:
        from importlib.metadata import version

        parser.exit(message=f'lossreg {version("lossreg")}\n')


if TYPE_CHECKING:
    Commands: TypeAlias = argparse._SubParsersAction[argparse.ArgumentParser]


def _command(commands: Commands, name: str, help: str) -> argparse.ArgumentParser:
    """A command, implemented by ``run`` in the module of the same name in :mod:`lossreg.commands`."""
    command = commands.add_parser(name, help=help, description=help, epilog=EXIT_CODES,
                                  formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip

    def start(options: argparse.Namespace) -> int:
        handler: Run = importlib.import_module(f'lossreg.commands.{name}').run
        return handler(options)

    command.set_defaults(run=start)
    return command


def _machine_readable(command: argparse.ArgumentParser) -> None:
    command.add_argument('--json', action='store_true', help='print JSON instead of a table')


def _imports(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        '--import', dest='imports', metavar='MODULE', action='append', default=[],
        help='import a module that registers its own losses (repeatable)',
    )  # fmt: skip


def _host(command: argparse.ArgumentParser, what: str) -> None:
    command.add_argument('--host', default='', metavar='PACKAGE', help=what)


def _count(text: str) -> int:
    number = int(text) if text.isdecimal() else 0
    if number < 1:
        raise argparse.ArgumentTypeError(f'{text!r} is not a number of processes; give 1 or more')
    return number


def _list(commands: Commands) -> None:
    command = _command(commands, 'list', 'list all losses')
    _host(command, 'list the classes of this package and the losses that stand in for them, e.g. mmdet')
    _imports(command)
    _machine_readable(command)


def _show(commands: Commands) -> None:
    command = _command(commands, 'show', 'show one loss: arguments, calls, inputs, host classes')
    command.add_argument('loss', help='the name of the loss, e.g. GIoULoss')
    _imports(command)
    _machine_readable(command)


def _opset_help() -> str:
    return f'ONNX opset (default: {DEFAULT_OPSET}, for onnxruntime >= {OLDEST_ONNXRUNTIME[DEFAULT_OPSET]})'


def _export(commands: Commands) -> None:
    command = _command(commands, 'export', 'export losses; every file is verified before it is written')
    command.add_argument('targets', nargs='+', metavar='TARGET', help='a loss name, a config file or a folder')
    command.add_argument('--out', default='.', metavar='FOLDER', help='where to write (default: the current folder)')
    command.add_argument('--format', action='append', choices=(*SUFFIXES, 'all'), help='repeatable; default: onnx')
    command.add_argument('--grad', action='store_true', help='also return the gradient for every differentiable input')
    command.add_argument('--cotangent', action='store_true', help='also take grad_output, the gradient of the loss')
    command.add_argument('--call', default='', help="which of the loss's calls (see `lossreg show`)")
    command.add_argument(
        '--with', dest='optional', metavar='INPUT', action='append', default=[],
        help="an optional input of the file, such as weight; 'all' for all (repeatable; default: those that the head "
        'in a config gives, none for a loss alone)',
    )  # fmt: skip
    command.add_argument(
        '--fixed', metavar='DIM=SIZE', type=_size, action='append', default=[],
        help='make a dimension constant in onnx and pt2 files, such as N=32 (repeatable)',
    )  # fmt: skip
    command.add_argument(
        '--variant', default='', help='the variant, if the target is the name of a loss (default: default)'
    )
    command.add_argument('--opset', type=int, default=DEFAULT_OPSET, help=_opset_help())
    _host(command, "the package that plain names in a config mean (default: the config's default_scope)")
    _imports(command)
    _machine_readable(command)


def _size(text: str) -> tuple[str, int]:
    """A dimension and its size."""
    dim, _, size = text.partition('=')
    if not dim or not size.removeprefix('-').isdecimal():
        raise argparse.ArgumentTypeError(f'{text!r} is not a dimension and its size, such as N=32')
    return dim, int(size)


def _check(commands: Commands) -> None:
    command = _command(
        commands, 'check', 'check losses on every backend: values, gradients, edge cases and refusals of invalid input'
    )
    command.add_argument(
        'targets', nargs='*', metavar='TARGET',
        help='a loss name, a config file (also of a whole OpenMMLab model), a folder, or a manifest.json',
    )  # fmt: skip
    command.add_argument('--all', action='store_true', help='every registered loss, every variant')
    command.add_argument('--backend', action='append', choices=tuple(BACKENDS), help='only this backend (repeatable)')
    command.add_argument('--device', choices=('cpu', 'cuda'), default='cpu', help='where eager and TorchScript run')
    command.add_argument(
        '--require',
        action='append',
        choices=tuple(BACKENDS),
        default=[],
        help='fail (exit 3) unless this backend really ran',
    )
    command.add_argument('--every-set', action='store_true', help='every set of optional inputs, not just none and all')
    command.add_argument('--thorough', action='store_true', help='export every unit, without and with its gradient')
    command.add_argument(
        '--jobs', type=_count, default=1, metavar='N', help='check in N processes with one thread each (default: 1)'
    )
    command.add_argument(
        '--no-oracle', action='append', default=[], metavar='LOSS',
        help='this loss of yours needs no float64 oracle; float64 eager takes its place (repeatable)',
    )  # fmt: skip
    command.add_argument('--strict', action='store_true', help='losses without a stand-in among ours are failures')
    _host(command, "the package that plain names in a config mean (default: the config's default_scope)")
    command.add_argument('--junit', metavar='FILE', help='also write JUnit XML')
    command.add_argument('--markdown', metavar='FILE', help='also write a Markdown record')
    _imports(command)
    _machine_readable(command)


def _migrate(commands: Commands) -> None:
    command = _command(commands, 'migrate', 'print the diff that makes a config use our classes')
    command.add_argument('config', help='a config file of an OpenMMLab package')
    _host(command, "the package that plain names mean (default: the config's default_scope)")


def _bench(commands: Commands) -> None:
    command = _command(commands, 'bench', 'time loss and gradient on every backend, relative to eager')
    command.add_argument('losses', nargs='*', metavar='LOSS', help='names of losses (default: all)')
    command.add_argument('--scale', type=int, default=16, help='the factor on the sizes used in checks (default: 16)')
    command.add_argument('--rounds', type=int, default=30, help='the number of rounds (default: 30)')
    _imports(command)
    _machine_readable(command)


def _env(commands: Commands) -> None:
    command = _command(commands, 'env', 'show versions and backends, and what is missing')
    _machine_readable(command)
