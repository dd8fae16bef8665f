"""What an operator says about a node, on the command line and in a TOML file.

Each source is a :class:`NodeSettings` that may leave anything out; the more specific source wins,
field by field, and the outcome becomes a ``NodeConfig``. The keys of the file are the names of
the flags; an unknown key or a value of another type is an error that names file and key, because
a misspelt limit that is silently ignored is no limit.
"""

import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from types import MappingProxyType
from typing import TypeAlias

from odsi_proto.errors import ConfigError
from odsi_proto.node.config import CONGESTION, NodeConfig
from odsi_proto.routing.path import Peer
from odsi_proto.units import LayerRange
from odsi_proto.wire.identity import Signer
from odsi_proto.wire.tensor import NumericProfile

FILE_BYTES_MAX = 1 << 20
"""Far above any real settings file; a model file given by mistake is not read to its end."""

THREADS_MAX = 1_024
"""No machine has more cores; a larger number is a slip of the finger."""

KV_MIB_MAX = 1 << 24
"""16 TiB: the largest that is still plausible as a machine's memory."""

PROFILES: Mapping[str, NumericProfile] = MappingProxyType(
    {"exact": NumericProfile.FLOAT32, "fast": NumericProfile.FAST}
)
"""How a node computes, by the name people give."""

UPLINK_MBIT_MAX = 1_000_000
"""A terabit a second: no host's uplink is faster."""

_MIB = 1 << 20
_MBIT = 1_000_000 // 8
_LISTEN = re.compile(r"(?P<host>\[[0-9a-fA-F:.]+\]|[^:\[\]\s]+):(?P<port>\d{1,5})")


@dataclass(frozen=True, slots=True, kw_only=True)
class Listen:
    """Where a node listens."""

    host: str
    port: int
    """UDP port, or for metrics TCP; 0 lets the system choose."""

    @classmethod
    def parse(cls, text: str) -> "Listen":
        """From ``HOST:PORT``; raises ``ConfigError``."""
        match = _LISTEN.fullmatch(text.strip())
        if match is None or int(match["port"]) > 65_535:
            raise ConfigError(
                f"{text!r} is not an address to listen on: expected HOST:PORT, as in 127.0.0.1:4433"
            )
        return cls(host=match["host"].strip("[]"), port=int(match["port"]))


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeSettings:
    """What one source says about a node; ``None`` where it says nothing."""

    model: Path | None = None
    manifest: Path | None = None
    layers: LayerRange | None = None
    listen: Listen | None = None
    identity: Path | None = None
    peers: tuple[Peer, ...] | None = None
    threads: int | None = None
    kv_mib: int | None = None
    profile: NumericProfile | None = None
    metrics: Listen | None = None
    congestion: str | None = None
    uplink_mbit: int | None = None

    @classmethod
    def read(cls, file: Path) -> "NodeSettings":
        """The settings in a TOML file; ``ConfigError`` names the file and the key."""
        return cls.parse(_contents(file), source=file)

    @classmethod
    def parse(cls, text: str, *, source: Path) -> "NodeSettings":
        """The settings in a TOML document; paths in it are relative to where ``source`` lies."""
        try:
            table = tomllib.loads(text)
        except (tomllib.TOMLDecodeError, RecursionError) as error:
            raise ConfigError(f"{source} is not TOML: {error}") from error
        given: dict[str, object] = {}
        for key, value in table.items():
            if key not in _KEYS:
                raise ConfigError(f"{source}: unknown key {key!r}: expected one of {', '.join(_KEYS)}")
            name, convert = _KEYS[key]
            try:
                given[name] = convert(source, value)
            except ConfigError as error:
                raise ConfigError(f"{source}: {key}: {error}") from error
        return replace(cls(), **given)  # type: ignore[arg-type]  # _KEYS pairs each name with its type

    def over(self, other: "NodeSettings") -> "NodeSettings":
        """These settings, and those of ``other`` where these say nothing."""
        return replace(
            other,
            **{
                field.name: value
                for field in fields(self)
                if (value := getattr(self, field.name)) is not None
            },
        )

    def config(self, *, signer: Signer, default_model: Callable[[], Path]) -> NodeConfig:
        """The node these settings describe, run by ``signer``; ``ConfigError`` if something is missing."""
        if self.layers is None:
            raise ConfigError("no layers: give --layers LO-HI, or `layers` in the TOML file")
        listen = self.listen or Listen(host="127.0.0.1", port=0)
        config = NodeConfig(
            model=self.model or default_model(),
            manifest=self.manifest,
            layers=self.layers,
            signer=signer,
            host=listen.host,
            port=listen.port,
            peers=self.peers or (),
        )
        if self.threads is not None:
            config = replace(config, threads=_between("threads", self.threads, THREADS_MAX))
        if self.profile is not None:
            config = replace(config, profile=self.profile)
        if self.metrics is not None:
            config = replace(config, metrics=(self.metrics.host, self.metrics.port))
        if self.congestion is not None:
            config = replace(config, transport=replace(config.transport, congestion=self.congestion))
        if self.uplink_mbit is not None:
            rate = _between("uplink-mbit", self.uplink_mbit, UPLINK_MBIT_MAX) * _MBIT
            config = replace(config, transport=replace(config.transport, uplink_bytes_s=rate))
        if self.kv_mib is not None:
            config = replace(config, kv_bytes_max=_between("kv-mib", self.kv_mib, KV_MIB_MAX) * _MIB)
        return config


def _contents(file: Path) -> str:
    try:
        with file.open("rb") as stream:
            data = stream.read(FILE_BYTES_MAX + 1)
    except OSError as error:
        raise ConfigError(f"can not read {file}: {error.strerror}") from error
    if len(data) > FILE_BYTES_MAX:
        raise ConfigError(f"{file} is not a settings file: larger than {FILE_BYTES_MAX} bytes")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{file} is not TOML: {error}") from error


def _between(name: str, value: int, maximum: int) -> int:
    if not 1 <= value <= maximum:
        raise ConfigError(f"{name} is {value}: expected 1-{maximum}")
    return value


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise ConfigError(f"{value!r} is not a string")
    return value


def _path(source: Path, value: object) -> Path:
    """Relative to the file that says it, so that a settings file means the same from everywhere."""
    text = _text(value)
    try:
        return source.parent / Path(text).expanduser()
    except RuntimeError as error:
        raise ConfigError(f"{text!r}: {error}") from error


def _layers(_source: Path, value: object) -> LayerRange:
    return LayerRange.parse(_text(value))


def _listen(_source: Path, value: object) -> Listen:
    return Listen.parse(_text(value))


def _peers(_source: Path, value: object) -> tuple[Peer, ...]:
    if not isinstance(value, list):
        raise ConfigError(f"{value!r} is not an array of strings")
    return tuple(Peer.parse(_text(item)) for item in value)


def _profile(_source: Path, value: object) -> NumericProfile:
    found = PROFILES.get(_text(value))
    if found is None:
        raise ConfigError(f"{value!r} is not a profile: expected one of {', '.join(PROFILES)}")
    return found


def _congestion(_source: Path, value: object) -> str:
    if (name := _text(value)) not in CONGESTION:
        raise ConfigError(f"{value!r} is no congestion controller: expected one of {', '.join(CONGESTION)}")
    return name


_Convert: TypeAlias = Callable[[Path, object], object]


def _integer_to(maximum: int) -> _Convert:
    def convert(_source: Path, value: object) -> int:
        if not isinstance(value, int) or isinstance(value, bool):
            raise ConfigError(f"{value!r} is not an integer")
        if not 1 <= value <= maximum:
            raise ConfigError(f"{value} is out of range: expected 1-{maximum}")
        return value

    return convert


_KEYS: Mapping[str, tuple[str, _Convert]] = {
    "model": ("model", _path),
    "manifest": ("manifest", _path),
    "layers": ("layers", _layers),
    "listen": ("listen", _listen),
    "identity": ("identity", _path),
    "peer": ("peers", _peers),
    "threads": ("threads", _integer_to(THREADS_MAX)),
    "kv-mib": ("kv_mib", _integer_to(KV_MIB_MAX)),
    "profile": ("profile", _profile),
    "metrics": ("metrics", _listen),
    "congestion": ("congestion", _congestion),
    "uplink-mbit": ("uplink_mbit", _integer_to(UPLINK_MBIT_MAX)),
}
"""Key of the file (a flag's name) to field and conversion."""
