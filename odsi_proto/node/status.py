"""What a node says of itself at one moment: the values behind ``/status``, ``/metrics`` and ``odsi top``.

As JSON (docs/json.md) each class is an object with its fields' names. :func:`read_status` is the way
back; what it takes may come from anybody, so it checks every value's type and every list's length.
"""

import types
from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass
from functools import cache
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from odsi_proto.errors import ConfigError

T = TypeVar("T")

LISTED_MAX = 64
"""Waiting steps and messages that a status lists, the tightest ones; their number is beside them."""

ITEMS_MAX = 4_096
"""Items of a list, and codes of a table, that a reader takes: far more than a node has connections."""

TEXT_MAX = 1_024
"""Characters of a text that a reader takes: a reason is the longest."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionStatus:
    """One connection whose peer is authenticated."""

    participant: str
    address: str
    is_dialler: bool
    """Whether this node dialled."""
    controller: str
    """What chooses the window: the congestion controller's name."""
    rtt_us: int
    """Smoothed; 0 before there is one, as are the next two."""
    rtt_min_us: int
    queue_delay_us: int
    """What the smoothed round trip is above the least one: how long packets wait on the way."""
    window_bytes: int
    in_flight_bytes: int
    sent_bytes: int
    """UDP payload since the connection began, as are the next five."""
    sent_packets: int
    received_bytes: int
    received_packets: int
    lost_bytes: int
    lost_packets: int
    sent_bytes_per_s: int
    """Over the last second of the history, as is the next."""
    received_bytes_per_s: int


@dataclass(frozen=True, slots=True, kw_only=True)
class WaitingStep:
    """A step that the executor has not answered yet."""

    request: str
    position: int
    count: int
    slack_us: int
    """What is left of its budget once the rest of the path has taken its planned time; below 0: too late."""
    waited_us: int


@dataclass(frozen=True, slots=True, kw_only=True)
class WaitingMessage:
    """A message of which bytes have not left yet."""

    kind: str
    participant: str
    """Whom it is for."""
    slack_us: int | None
    """What is left until its deadline; null where it has none."""
    unsent_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestStatus:
    """A request that holds state here. Times are means over its steps."""

    request: str
    client: str
    """Participant id of who opened it."""
    stage: int
    stages: int
    is_ready: bool
    """Whether its path is complete: before, no step is taken."""
    age_us: int
    steps: int
    positions: int
    late: int
    """Steps whose budget was spent when they left."""
    transfer_us: int
    queue_us: int
    compute_us: int
    coordination_us: int


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """The last minute, a value for each interval, the oldest first."""

    interval_us: int
    rtt_us: tuple[int, ...]
    """The largest smoothed round trip of any connection."""
    queue_us: tuple[int, ...]
    """Mean time that steps waited for their turn."""
    steps: tuple[int, ...]
    late: tuple[int, ...]
    busy_us: tuple[int, ...]
    """Time in the layers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeStatus:
    """Everything about a node that ``odsi top`` shows."""

    participant: str
    version: str
    host: str
    port: int
    model: str
    model_root: str
    layers: str
    profile: str
    backend: str
    is_draining: bool
    uptime_us: int
    busy_us: int
    """Time in the layers since the node started."""
    steps: Mapping[str, int]
    """By outcome."""
    deadline_misses: int
    refusals: Mapping[str, int]
    """By error code; requests that were refused or ended with one."""
    requests_opened: int
    requests_finished: int
    kv_blocks: int
    kv_blocks_used: int
    uplink_bytes_per_s: int | None
    """Configured; null without a limit."""
    bulk_bytes_per_s: int | None
    """What bulk is held to now, beside steps; null while it is not."""
    connections_open: int
    """Also those whose peer is not authenticated yet."""
    connections: tuple[ConnectionStatus, ...]
    requests: tuple[RequestStatus, ...]
    queue_expected_us: int
    """Until a short step taken now would start."""
    running_steps: int
    """Computed at this moment, together."""
    waiting_steps: int
    """That the executor has not answered, those it computes included."""
    waiting: tuple[WaitingStep, ...]
    """Tightest first."""
    sending_messages: int
    sending_bytes: int
    sending: tuple[WaitingMessage, ...]
    """Tightest first."""
    history: History


def to_fields(value: object) -> Any:
    """A status, or a part of one, as values that JSON has."""
    if is_dataclass(value):
        return {field.name: to_fields(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, tuple):
        return [to_fields(item) for item in value]
    return dict(value) if isinstance(value, Mapping) else value


def read_status(given: object) -> NodeStatus:
    """The status in what JSON gave; raises ``ConfigError`` that names the field."""
    status: NodeStatus = _read(NodeStatus, given, "status")
    return status


def _read(kind: Any, given: object, where: str) -> Any:
    if isinstance(kind, type) and is_dataclass(kind):
        if not isinstance(given, dict):
            raise ConfigError(f"{where} is not an object")
        hints = _hints(kind)
        missing = [name for name in hints if name not in given]
        if missing:
            raise ConfigError(f"{where} has no field {missing[0]}")
        return kind(**{name: _read(hint, given[name], f"{where}.{name}") for name, hint in hints.items()})
    origin = get_origin(kind)
    if origin is tuple:
        if not isinstance(given, list) or len(given) > ITEMS_MAX:
            raise ConfigError(f"{where} is not a list of at most {ITEMS_MAX}")
        item, _ = get_args(kind)
        return tuple(_read(item, value, f"{where}[{index}]") for index, value in enumerate(given))
    if origin in (Union, types.UnionType):
        first, _ = get_args(kind)
        return None if given is None else _read(first, given, where)
    if origin is not None:  # a table of counts
        if not isinstance(given, dict) or len(given) > ITEMS_MAX:
            raise ConfigError(f"{where} is not an object of at most {ITEMS_MAX} entries")
        return {name[:TEXT_MAX]: _read(int, value, f"{where}.{name[:64]}") for name, value in given.items()}
    if type(given) is not kind or (isinstance(given, str) and len(given) > TEXT_MAX):
        raise ConfigError(f"{where} is not {_NAMES[kind]}")
    if isinstance(given, int) and abs(given) >= 1 << 63:
        raise ConfigError(f"{where} is out of range")
    return given


@cache
def _hints(kind: Any) -> dict[str, Any]:
    return get_type_hints(kind)


_NAMES: Mapping[type, str] = {
    int: "an integer",
    str: f"a text of at most {TEXT_MAX}",
    bool: "a truth value",
}
