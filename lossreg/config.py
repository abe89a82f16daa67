"""Finds the losses in config files: ours, and those of whole OpenMMLab model configs."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import unified_diff
from pathlib import Path
from typing import Any

from lossreg.class_checks import why_kept
from lossreg.data_config import bases_stay_data, is_data, read_data_config
from lossreg.engine import Config
from lossreg.errors import ConfigError, DeclinedError
from lossreg.head_calls import Head, head_calls
from lossreg.hosts import StandIn, stand_ins
from lossreg.misnamed import FREE_KEYS, LOSS_KEY, LOSS_WORD, KnownNames
from lossreg.registry import load_losses
from lossreg.request import Request, variants_of
from lossreg.spec import spec_of
from lossreg.untrusted import MAX_TEXT, built_from_data, read_file

LOSS_NAME = re.compile(r'\w*(Loss|Divergence)$')
"""A pattern for the types of losses that are not ours; they are listed as skipped."""


@dataclass(frozen=True)
class LossInConfig:
    """A loss dict in a config.

    Attributes:
        place: where the dict is, such as ``file:model.head.loss``.
        written: its ``type`` as written; for a class, its package and name, such as ``mmdet.FocalLoss``.
        options: its arguments.
        ours: the name of our class that training would build; '' for a host's class.
        host_class: the host class that the dict means, such as ``mmpose.KLDiscretLoss``; '' if it means ours.
        stand_in: our class for that one, if there is one.
        owners: the types of the dicts around it, the outermost first.
        data: the folder of a config in YAML or JSON, which is data; None for a config in Python.
        fault: what is wrong with the type, if no such loss is known.
        head: the innermost dict around it that has a type; None if there is none.
    """

    place: str
    written: str
    options: Mapping[str, Any]
    ours: str = ''
    host_class: str = ''
    stand_in: StandIn | None = None
    owners: tuple[str, ...] = ()
    data: Path | None = None
    fault: str = ''
    head: Head | None = None

    @property
    def kept(self) -> str:
        """Why the host's own class must stay here; '' if ours can replace it."""
        hosts = [h.name for h in spec_of(load_losses()[self.ours]).stands_in_for] if self.ours else [self.host_class]
        return why_kept(hosts, self.owners)

    @property
    def type(self) -> str:
        """The name of the class that training would build."""
        return f'lossreg.{self.ours}' if self.ours else self.written.rpartition('.')[2]

    @property
    def conflict(self) -> str:
        """The name to write instead, if our class of this name is not the one that this host means by it; else ''."""
        if self.ours and self.stand_in is not None and self.stand_in.loss.__name__ != self.ours:
            return self.stand_in.name
        return ''

    def request(self) -> Request | None:
        """The loss to export or check, without its head; None if no class of ours stands in for it.

        Raises:
            ConfigError: our class does not take these arguments, is not the one that this host means, or changes what
                the head around it does.
            DeclinedError: an argument is for the head, which removes it before it builds the loss.
        """
        with built_from_data(self.data):
            return self._request()

    def _request(self) -> Request | None:
        if self.fault:
            raise ConfigError(self.fault)
        if self.conflict:
            raise ConfigError(f'{self.type} means something else here; write {self.conflict}')
        if self.ours and self.kept:
            raise ConfigError(self.kept)
        if self.ours:
            return Request.of({'type': self.type, **self.options})
        if self.stand_in is None:
            return None
        for name, reason in self.stand_in.host_class.left_to_heads.items():
            if name in self.options:
                raise DeclinedError(reason)
        options = self.stand_in.options(_translated(self.options, self.host_class.partition('.')[0]))
        call_name = self.stand_in.host_class.call
        return Request.of({'type': self.stand_in.loss, **options}, call_name=call_name, host_class=self.host_class)

    def requests(self) -> list[Request]:
        """The loss to export or check, once for each call that its head makes; empty if no class of ours stands in.

        Raises:
            ConfigError: as in :meth:`request`, or the loss does not take what its head gives.
            DeclinedError: as in :meth:`request`, or only the host's own class takes what its head gives.
        """
        request = self.request()
        if request is None or self.head is None:
            return [] if request is None else [request]
        package, written = self.head.type.partition('.')[0], {'type': self.written, **self.options}
        hosts = spec_of(request.loss).stands_in_for
        call_name = request.call_name or next((h.call for h in hosts if h.name.partition('.')[0] == package), '')
        try:
            return [request.called_by(c) for c in head_calls(self.head, written, request.loss, call_name)]
        except ConfigError as error:
            if self.ours:
                raise
            raise DeclinedError(str(error)) from error


def _translated(options: Mapping[str, Any], package: str) -> dict[str, Any]:
    """Options in which each host's loss is replaced by its stand-in.

    Raises:
        ConfigError: one of them has no stand-in.
    """
    return {key: _translated_value(value, package) for key, value in options.items()}


def _translated_value(value: Any, package: str) -> Any:
    if isinstance(value, (list, tuple)):
        return [_translated_value(item, package) for item in value]
    if not isinstance(value, Mapping):
        return value
    name = _type_name(value)
    if not name or not _is_loss(name) or name.startswith('lossreg.'):
        return _translated(value, package)
    found = _loss_in_config('', dict(value), package, stand_ins(), unscoped=False)
    if found.stand_in is None:
        raise ConfigError(f'nothing stands in for {found.host_class or name}, which is part of this loss')
    return {'type': found.stand_in.name, **found.stand_in.options(_translated(found.options, package))}


def find_losses(path: Path, host: str = '') -> list[LossInConfig]:
    """All losses in one config file.

    Args:
        path: a text or pure-Python config of mmengine, or a config in YAML or JSON (see :mod:`lossreg.data_config`).
        host: the package whose registry resolves plain names; the config's ``default_scope`` by default.

    Raises:
        ConfigError: the file cannot be read as a config.
    """
    config = read_data_config(path) if is_data(path) else _run_config(path)
    scope = host or config.get('default_scope') or ''
    if not isinstance(scope, str):
        raise ConfigError(f'{path} has a default_scope that is not a name')
    imports = config.get('custom_imports')
    unscoped = isinstance(imports, Mapping) and 'lossreg.unscoped' in (imports.get('imports') or [])
    data = path.parent if is_data(path) else None
    known = stand_ins()
    found = [
        replace(
            _loss_in_config(f'{path}:{place}', dict(item), scope, known, unscoped), owners=owners, head=head, data=data
        )
        for place, item, scope, owners, head in _loss_dicts(config, '', scope)
    ]
    unknown = _unknown(config, '', scope, KnownNames())
    return _with_unknown(found, {f'{path}:{place}': item for place, item in unknown})


def _run_config(path: Path) -> dict[str, Any]:
    """A config in Python, which mmengine reads by running it."""
    if not os.path.isfile(path):
        raise ConfigError(f'{path} is not a regular file')
    try:
        with bases_stay_data():
            found: dict[str, Any] = Config.fromfile(path, import_custom_modules=False).to_dict()
    except (ConfigError, KeyboardInterrupt):
        raise
    except BaseException as error:  # a config is code, so it may raise anything, even SystemExit
        reason = str(error).strip().splitlines()[0] if str(error).strip() else ''
        raise ConfigError(f'{path} cannot be read as a config: {type(error).__name__}: {reason}') from error
    return found


def _loss_dicts(
    node: Any, place: str, scope: str, owners: tuple[str, ...] = (), head: Head | None = None
) -> Iterator[tuple[str, Mapping[str, Any], str, tuple[str, ...], Head | None]]:
    """Every dict whose type is, or looks like, a loss, with its place, scope, owners and head.

    A dict's ``_scope_`` applies to everything inside it, as in mmengine.
    """
    if isinstance(node, Mapping):
        name = _type_name(node)
        if name and _is_loss(name):
            yield place, node, scope, owners, head
        scope = node.get('_scope_', scope)
        if name:
            owners, head = (*owners, name), Head(name if '.' in name else f'{scope}.{name}', '', node)
        for key, value in node.items():
            inside = head and replace(head, option=f'{head.option}.{key}' if head.option else str(key))
            yield from _loss_dicts(value, f'{place}.{key}' if place else str(key), scope, owners, inside)
    elif isinstance(node, (list, tuple)):
        for index, value in enumerate(node):
            inside = head and replace(head, option=f'{head.option}[{index}]')
            yield from _loss_dicts(value, f'{place}[{index}]', scope, owners, inside)


def _unknown(
    node: Any, place: str, scope: str, names: KnownNames, is_expected: bool = False
) -> Iterator[tuple[str, LossInConfig]]:
    """Every dict that should be a loss but has an unknown type: it is misspelt, or under a key that holds losses."""
    if isinstance(node, Mapping):
        name = _type_name(node)
        if name:
            found = _unknown_type(node, name, scope, names, is_expected)
            if found is not None:
                yield place, found
        scope = node.get('_scope_', scope)
        for key, value in node.items():
            is_loss_key = LOSS_KEY.fullmatch(str(key)) is not None
            inner = f'{place}.{key}' if place else str(key)
            if FREE_KEYS.fullmatch(str(key)) and isinstance(value, Mapping):
                for own, item in value.items():
                    yield from _unknown(item, f'{inner}.{own}', scope, names)
            else:
                yield from _unknown(value, inner, scope, names, is_loss_key or (is_expected and not name))
    elif isinstance(node, (list, tuple)):
        for index, value in enumerate(node):
            yield from _unknown(value, f'{place}[{index}]', scope, names, is_expected)


def _unknown_type(
    node: Mapping[str, Any], name: str, scope: str, names: KnownNames, is_expected: bool
) -> LossInConfig | None:
    plain = name.rpartition('.')[2]
    package = name.split('.')[0] if '.' in name else node.get('_scope_', '') or scope
    if names.holds(plain, package):
        return None
    looks_like_loss = LOSS_WORD.search(plain) is not None
    is_ours = package == 'lossreg' and ('.' in name or is_expected or LOSS_NAME.match(plain) is not None)
    # a class exists, whatever its name
    is_class = isinstance(node.get('type'), type)
    fault = '' if is_class else names.fault_of(plain, package, is_ours or (is_expected and not looks_like_loss))
    if not fault and not is_expected:
        return None
    options = {key: value for key, value in node.items() if key not in ('type', '_scope_')}
    return LossInConfig('', name, options, host_class=f'{package}.{plain}' if package else '', fault=fault)


def _with_unknown(found: Sequence[LossInConfig], unknown: Mapping[str, LossInConfig]) -> list[LossInConfig]:
    """The losses found, with the faults of unknown ones, and those added that do not look like losses."""
    places = {item.place for item in found}
    marked = [replace(item, fault=unknown[item.place].fault) if item.place in unknown else item for item in found]
    return [*marked, *(replace(item, place=place) for place, item in unknown.items() if place not in places)]


def _type_name(node: Mapping[str, Any]) -> str:
    """The type as a config would write it; for a class, with its package."""
    kind = node.get('type')
    if isinstance(kind, type):
        package = kind.__module__.split('.')[0]
        return f'{package}.{kind.__name__}'
    return kind if isinstance(kind, str) else ''


def _is_loss(name: str) -> bool:
    plain = name.rpartition('.')[2]
    return plain in load_losses() or LOSS_NAME.match(plain) is not None


def _loss_in_config(
    place: str, item: dict[str, Any], scope: str, known: Mapping[str, StandIn], unscoped: bool
) -> LossInConfig:
    name = _type_name(item)
    options = {key: value for key, value in item.items() if key not in ('type', '_scope_')}
    plain = name.rpartition('.')[2]
    package = name.split('.')[0] if '.' in name else item.get('_scope_', '') or scope
    host = f'{package}.{plain}' if package else ''
    # a host's registry looks up its own names before those in the root registry
    falls_back = '.' not in name and unscoped and host not in known
    ours = plain if plain in load_losses() and (package in ('lossreg', '') or falls_back) else ''
    if ours:
        host = '' if f'{scope}.{plain}' not in known else f'{scope}.{plain}'
    return LossInConfig(place, name, options, ours, host, known.get(host))


@dataclass(frozen=True)
class Skipped:
    """A loss in a config that cannot be exported or checked.

    Attributes:
        loss: the loss.
        reason: why not, in one line.
        is_error: whether the config is wrong, rather than the loss having no stand-in.
    """

    loss: LossInConfig
    reason: str
    is_error: bool


def requests_for(target: str, host: str = '', variant: str = '') -> tuple[list[Request], list[Skipped]]:
    """The losses of a command-line target: a loss name, a config file, or a folder of configs.

    A Python file that does not exist is looked up among our own configs (``pose/kl_discret_loss.py``).

    Args:
        target: the target as written.
        host: the package whose registry resolves plain names in configs.
        variant: the variant, if the target is the name of a loss; all variants by default.

    Raises:
        ConfigError: the target does not exist or holds no loss, or a config cannot be read.
    """
    path = Path(target)
    if path.suffix == '.py' and not os.path.exists(path):
        path = config_folder() / target
    if not os.path.exists(path):  # pathlib's raises if the name is too long
        if path.suffix or '/' in target:
            raise ConfigError(f'{target} does not exist')
        return variants_of(target, variant), []
    files = sorted(p for p in path.rglob('*.py') if not p.name.startswith('_')) if path.is_dir() else [path]
    found: list[LossInConfig] = []
    unread: list[Skipped] = []
    for file in files:
        try:
            found += find_losses(file, host)
        except ConfigError as error:
            if not path.is_dir():
                raise
            unread.append(Skipped(LossInConfig(str(file), file.stem, {}), str(error), is_error=True))
    if not found and not unread:
        raise ConfigError(f'{target} holds no loss: no dict whose type is a loss')
    requests, skipped = _split(found)
    return requests, [*unread, *skipped]


def _split(found: Sequence[LossInConfig]) -> tuple[list[Request], list[Skipped]]:
    requests: list[Request] = []
    skipped: list[Skipped] = []
    within: tuple[str, ...] = ()
    for item in found:
        if item.place.startswith(within):  # part of a composite loss of ours, which is one graph
            continue
        try:
            found_here = item.requests()
        except ConfigError as error:
            skipped.append(Skipped(item, f'{item.place}: {error}', is_error=True))
            continue
        except DeclinedError as error:
            skipped.append(Skipped(item, f'{item.place}: {error}', is_error=False))
            continue
        if not found_here:
            skipped.append(
                Skipped(item, f'{item.place}: nothing stands in for {item.host_class or item.written}', is_error=False)
            )
            continue
        if item.ours and found_here[0].is_callable:
            within += (f'{item.place}.',)
        for request in found_here:
            _add(requests, request)
    return requests, skipped


def _add(requests: list[Request], request: Request) -> None:
    """Adds a request, or only its heads if an earlier request gives the same artefacts."""
    for at, known in enumerate(requests):
        if known.is_same_call(request):
            requests[at] = replace(known, heads=tuple(dict.fromkeys((*known.heads, *request.heads))))
            return
    requests.append(request)


def migration_diff(path: Path, host: str = '') -> str:
    """The unified diff that makes a config use our classes; '' if nothing needs to change.

    Raises:
        ConfigError: the file cannot be read as a config.
        DeclinedError: dicts of one type need different changes.
    """
    found = find_losses(path, host)
    try:
        before = read_file(path, MAX_TEXT).decode('utf-8')
    except UnicodeDecodeError as error:
        raise ConfigError(f'{path} is not UTF-8: {error}') from error
    after = before
    changes: dict[str, set[str]] = {}
    for item in found:
        if item.stand_in is not None and not item.kept and (item.conflict or not item.ours):
            missing = {k: v for k, v in item.stand_in.host_class.defaults.items() if k not in item.options}
            extra = ''.join(f', {key}={value!r}' for key, value in missing.items())
            changes.setdefault(item.written, set()).add(f"'{item.stand_in.name}'{extra}")
    for name in {item.written for item in found if item.kept} & changes.keys():
        changes[name].add('no change')
    for name, texts in changes.items():
        if len(texts) > 1:
            raise DeclinedError(f'{path}: the dicts of type {name} need different changes; edit them by hand: {texts}')
        after = re.sub(_written_type(name), rf'\g<1>{texts.pop()}', after)
    name = path.as_posix().lstrip('/')
    return ''.join(unified_diff(before.splitlines(True), after.splitlines(True), f'a/{name}', f'b/{name}'))


def _written_type(name: str) -> str:
    """The pattern of a type, a name or a class, in a config's text. Its first group matches what precedes the type."""
    before = r"""(\btype\s*=\s*|['"]type['"]\s*:\s*)"""
    return rf"""{before}(?:(?P<quote>['"]){re.escape(name)}(?P=quote)|(?:\w+\.)*{name.rpartition('.')[2]}\b)"""


def config_folder() -> Path:
    """Our own configs: beside the package in a checkout, in ``.mim`` in an installed wheel.

    Raises:
        ConfigError: neither exists.
    """
    package = Path(__file__).parent
    for folder in (package / '.mim' / 'configs', package.parent / 'configs'):
        if folder.is_dir():
            return folder
    raise ConfigError('the configs of lossreg are neither installed with it nor beside it; reinstall lossreg')
