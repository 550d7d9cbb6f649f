"""Keeps the configuration that is in force, and exchanges it when its file changes."""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import structlog

from chatd.backends import Provider
from chatd.engine.config.models import Config, ProviderSpec
from chatd.engine.config.parse import ConfigRefused, Fault, parse
from chatd.engine.config.secrets import NoSecret, Secrets
from schemas.base import JsonObject
from schemas.canonical import content_id
from services.audit import AuditLog, account
from services.errors import Unavailable

log = structlog.get_logger(__name__)

Keys = tuple[str, ...]
Build = Callable[[str, ProviderSpec, Keys], Provider]
Signature = tuple[tuple[str, int, int, int], ...]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One configuration and everything made from it. A request keeps to the one it began with."""

    config: Config
    hash: str
    providers: Mapping[str, Provider]


@dataclass(frozen=True, slots=True)
class _Read:
    config: Config
    keys: Mapping[str, Keys]
    signature: Signature


class Keeper:
    """Holds the snapshot in force. A file that cannot be used leaves the last good one in force."""

    def __init__(self, build: Build, audit: AuditLog) -> None:
        self._build = build
        self._audit = audit
        self._noted: str | None = None
        self._unnoted: str | None = None
        self._path: Path | None = None
        self._secrets: Secrets | None = None
        self._signature: Signature = ()
        self._made: dict[str, tuple[ProviderSpec, Keys, Provider]] = {}
        self._snapshot: Snapshot | None = None
        self._refused: str | None = None

    @property
    def current(self) -> Snapshot:
        assert self._snapshot is not None  # `hold` or `open` comes first
        return self._snapshot

    def hold(self, config: Config, keys: Mapping[str, Keys]) -> None:
        """Put a configuration into force that comes from no file."""
        self._use(config, keys)

    async def open(self, path: Path, variable: Callable[[str], str | None]) -> None:
        """Put a file into force and watch it. Raises `ConfigRefused`, and `OSError` if it cannot be read."""
        self._path = path
        self._secrets = Secrets(variable, path.parent)
        read = await asyncio.to_thread(_read, path, self._secrets)
        self._signature = read.signature
        self._use(read.config, read.keys)
        await self._note(path)

    async def refresh(self) -> None:
        """Take up the file if it, or a file of keys, has changed. Calls under way keep what they have."""
        if self._path is None or self._secrets is None:
            return
        await self._exchange(self._path, self._secrets)
        await self._note(self._path)

    async def _exchange(self, path: Path, secrets: Secrets) -> None:
        files = _files(path, secrets, self.current.config)
        signature = await asyncio.to_thread(_signature, files)
        if signature == self._signature:
            return
        self._signature = signature
        try:
            read = await asyncio.to_thread(_read, path, secrets)
        except (ConfigRefused, OSError, UnicodeDecodeError) as error:
            self._refused = f"the changed configuration is not in force: {error}"
            log.error("configuration refused", reason=str(error))  # noqa: TRY400 - an operator's mistake
            return
        self._refused = None
        self._signature = read.signature
        self._use(read.config, read.keys)
        log.info("configuration exchanged", config_hash=self.current.hash)

    async def _note(self, path: Path) -> None:
        """Tell the audit log what is in force; the next look tries again where that fails: no call waits."""
        config_hash = self.current.hash
        if self._noted == config_hash:
            return
        try:
            await asyncio.to_thread(self._tell, path, self.current)
        except (OSError, Unavailable) as error:
            if self._unnoted != config_hash:
                log.warning("configuration not noted in the audit log yet", reason=str(error))
            self._unnoted = config_hash
        else:
            self._noted = config_hash

    def _tell(self, path: Path, snapshot: Snapshot) -> None:
        detail = {
            "config_hash": snapshot.hash,
            "providers": sorted(snapshot.providers),
            "aliases": sorted(snapshot.config.aliases),
        }
        owner = account(path.stat().st_uid)
        self._audit.append_if_new("configuration_in_force", "chatd", owner, detail)

    async def check(self) -> None:
        """Raise `Unavailable` while a changed file is refused. For readiness."""
        if self._refused is not None:
            raise Unavailable(self._refused, code="config_refused")

    def close(self) -> None:
        """Let go of all providers."""
        for _, _, provider in self._made.values():
            provider.retire()
        self._made = {}

    def _use(self, config: Config, keys: Mapping[str, Keys]) -> None:
        made: dict[str, tuple[ProviderSpec, Keys, Provider]] = {}
        for name, spec in config.providers.items():
            own = keys.get(name, ())
            before = self._made.get(name)
            if before is not None and before[:2] == (spec, own):
                made[name] = before
            else:
                made[name] = (spec, own, self._build(name, spec, own))
        providers = {name: provider for name, (_, _, provider) in made.items()}
        for name, (_, _, provider) in self._made.items():
            if providers.get(name) is not provider:
                provider.retire()
        self._made = made
        self._snapshot = Snapshot(config, _hash(config), providers)


def read(path: Path, variable: Callable[[str], str | None]) -> Config:
    """What a file says. Raises `ConfigRefused`, `OSError` and `UnicodeDecodeError`."""
    return _read(path, Secrets(variable, path.parent)).config


def _read(path: Path, secrets: Secrets) -> _Read:
    signature = _signature([path])
    config = parse(path.read_text(), secrets, file=path.name)
    try:
        keys = {name: secrets.of(spec) for name, spec in config.providers.items()}
    except NoSecret as error:  # gone since it was checked
        raise ConfigRefused(path.name, [Fault(1, "", str(error))]) from None
    files = _files(path, secrets, config)
    return _Read(config, keys, signature + _signature(files[1:]))


def _files(path: Path, secrets: Secrets, config: Config) -> list[Path]:
    return [path, *(file for spec in config.providers.values() for file in secrets.files(spec))]


def _signature(files: list[Path]) -> Signature:
    return tuple(map(_stat, files))


def _stat(file: Path) -> tuple[str, int, int, int]:
    try:
        status = file.stat()
    except OSError:
        return (str(file), 0, 0, 0)
    return (str(file), status.st_ino, status.st_mtime_ns, status.st_size)


def _hash(config: Config) -> str:
    """The sha256 of the canonical configuration. Keys are not in it, headers are masked, passwords cut."""
    said: JsonObject = config.model_dump(mode="json")
    providers = said["providers"]
    assert isinstance(providers, dict)
    for provider in providers.values():
        if isinstance(provider, dict) and isinstance(url := provider["base_url"], str):
            provider["base_url"] = without_password(url)
    return content_id(said)


def without_password(url: str) -> str:
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
