"""One frame of ``odsi top``: a status as a screen of text. Pure, so that frames can be compared."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from rich.cells import cell_len
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from odsi_proto.cli.output import printable
from odsi_proto.node.status import ConnectionStatus, History, NodeStatus

LOAD_SAMPLES = 10
"""Seconds that the load is a mean of."""

WIDTH_FULL = 96
"""From here on every column has room; an 80-column terminal goes without addresses and clients, a
narrower one also without the columns furthest to the right."""

HEAD_LINES = 9
SAID_CHARS = 62
"""Beside a sparkline: its name, and the largest numbers in words."""

TITLE_LINES = 3
"""Of a section: a blank line, its title, the headings of its columns."""

_BARS = "▁▂▃▄▅▆▇█"
_BARS_ASCII = ".:-=+*%#"
_SHORT = 8


class Room(NamedTuple):
    """What there is for a frame."""

    width: int
    rows_max: int | None
    """Of each list; None for all."""

    @property
    def is_narrow(self) -> bool:
        """Whether columns that can be missed are left out."""
        return self.width < WIDTH_FULL


def frame(
    status: NodeStatus,
    *,
    width: int = WIDTH_FULL,
    height: int | None = None,
    problem: str = "",
    is_unicode: bool = True,
) -> RenderableType:
    """The screen; lists are cut to what fits ``height`` lines, None for no limit."""
    rows_max = None if height is None else max(1, (height - HEAD_LINES - 3 * TITLE_LINES - 1) // 3)
    room = Room(width, rows_max)
    parts: list[RenderableType] = [*_head(status, problem), Text()]
    parts += _sparklines(status.history, status.queue_expected_us, room, is_unicode=is_unicode)
    parts += _section("connections", _connections(status.connections, room), len(status.connections), room)
    waiting = status.waiting_steps + status.sending_messages
    parts += _section("waiting, tightest first", _waiting(status, room), waiting, room)
    requests = _requests(status, room)
    parts += _section("requests, times in ms a step", requests, len(status.requests), room)
    return Group(*parts)


def _head(status: NodeStatus, problem: str) -> Iterator[Text]:
    first = _line(
        Text(f"odsi {_clean(status.participant)[:_SHORT]}", style="bold"),
        f"layers {_clean(status.layers)} of {_clean(status.model)}",
        f"{_clean(status.profile)}, {_clean(status.backend)}",
    )
    yield first
    share = status.deadline_misses / max(1, sum(status.steps.values()))
    missed = f"misses {status.deadline_misses} ({share:.1%})"
    misses = Text(missed, style="red" if status.deadline_misses else "")
    steps = {_clean(name): count for name, count in status.steps.items()}
    other = [f"{count} {name}" for name, count in steps.items() if count and name != "done"]
    yield _line(
        Text("leaving", style="yellow") if status.is_draining else "serving",
        f"up {_duration(status.uptime_us)}",
        f"load {_load(status.history):.0%}",
        f"{_rate(status.history):.1f} steps/s",
        f"state {status.kv_blocks_used} of {status.kv_blocks} blocks",
        _count(status.connections_open, "connection"),
    )
    yield _line(
        misses,
        f"requests {len(status.requests)} open, {status.requests_finished} finished",
        ", ".join([f"steps {steps.get('done', 0)} done", *other]),
    )
    refusals = ", ".join(f"{_clean(code)} {count}" for code, count in status.refusals.items())
    limits = (("uplink", status.uplink_bytes_per_s), ("bulk held to", status.bulk_bytes_per_s))
    held = [f"{what} {_bytes(rate)}/s" for what, rate in limits if rate is not None]
    if held:
        yield _line(*held)
    if refusals:
        yield _line(f"refused {refusals}")
    if problem:
        yield _line(Text(problem, style="bold red"))


def _sparklines(
    history: History, expected_us: int, room: Room, *, is_unicode: bool
) -> Iterator[RenderableType]:
    columns = max(10, room.width - SAID_CHARS)  # the newest, if not all
    minute_s = history.interval_us * len(history.rtt_us) // 1_000_000
    for name, values in (("RTT", history.rtt_us), ("queue", history.queue_us)):
        now, most = (values[-1], max(values)) if values else (0, 0)
        said = f"{_ms(now)} ms, at most {_ms(most)} in {minute_s} s"
        if name == "queue":
            said += f"; {_ms(expected_us)} expected"
        drawing = sparkline(values[-columns:], is_unicode=is_unicode)
        yield _line(f"{name:<7}{drawing:<{min(columns, len(values))}}  {said}")


def sparkline(values: Sequence[int], *, is_unicode: bool = True) -> str:
    """A column for each value, as high as it is beside the largest; a space for 0."""
    bars = _BARS if is_unicode else _BARS_ASCII
    most = max(values, default=0)
    return "".join(" " if value <= 0 else bars[(value * len(bars) - 1) // most] for value in values)


def _section(title: str, table: Table, count: int, room: Room) -> Iterator[RenderableType]:
    left_out = count - table.row_count
    more = f", {left_out} more" if left_out and table.row_count else ""
    yield Text()
    yield Text(f"{title} ({count}{more})", style="bold")
    if table.row_count:
        _fit(table, room.width)
        yield table


def _fit(table: Table, width: int) -> None:
    """Leave out the last columns that have no room: rich would cut every one of them, the numbers too."""
    taken, gap = 0, table.padding[1]
    for index, column in enumerate(table.columns):
        taken += max(cell_len(str(cell)) for cell in (column.header, *column.cells))
        if index and taken > width:
            del table.columns[index:]
            return
        taken += gap


def _connections(connections: Sequence[ConnectionStatus], room: Room) -> Table:
    table = _table("peer", *([] if room.is_narrow else ["address"]))
    _numbers(table, "RTT ms", "least", "queue", "window", "in flight", "lost", "out/s", "in/s")
    for one in connections[: room.rows_max]:
        lost = one.lost_packets / max(1, one.sent_packets)
        table.add_row(
            _clean(one.participant)[:_SHORT],
            *([] if room.is_narrow else [_clean(one.address)]),
            _ms(one.rtt_us),
            _ms(one.rtt_min_us),
            _ms(one.queue_delay_us),
            _bytes(one.window_bytes),
            _bytes(one.in_flight_bytes),
            Text(f"{lost:.1%}", style="yellow" if lost >= 0.01 else ""),
            _bytes(one.sent_bytes_per_s),
            _bytes(one.received_bytes_per_s),
        )
    return table


def _waiting(status: NodeStatus, room: Room) -> Table:
    """Both queues in one list: what has least left is first, wherever it waits."""
    rows: list[tuple[float, tuple[str, str, str, str]]] = []
    for step in status.waiting:
        what = f"{_clean(step.request)[:_SHORT]} at {step.position}, {_count(step.count, 'position')}"
        rows.append((step.slack_us, ("executor", what, _ms(step.waited_us), "")))
    for message in status.sending:
        slack = float("inf") if message.slack_us is None else message.slack_us
        what = f"{_clean(message.kind)} to {_clean(message.participant)[:_SHORT]}"
        rows.append((slack, ("send queue", what, "", _bytes(message.unsent_bytes))))
    rows.sort(key=lambda row: row[0])
    table = _table()
    _numbers(table, "slack ms")
    for name in ("where", "what"):
        table.add_column(name, no_wrap=True)
    _numbers(table, "waited ms", "unsent")
    for slack, cells in rows[: room.rows_max]:
        said = "none" if slack == float("inf") else _ms(int(slack))
        table.add_row(Text(said, style="red" if slack <= 0 else ""), *cells)
    return table


def _requests(status: NodeStatus, room: Room) -> Table:
    table = _table("request", *([] if room.is_narrow else ["client"]), "stage")
    if room.is_narrow:
        table.padding = (0, 1, 0, 0)
    _numbers(table, "age", "steps", "positions", "late", "transfer", "queue", "compute", "coord.")
    for one in status.requests[: room.rows_max]:
        table.add_row(
            _clean(one.request)[:_SHORT],
            *([] if room.is_narrow else [_clean(one.client)[:_SHORT]]),
            f"{one.stage + 1} of {one.stages}" if one.is_ready else "opening",
            _duration(one.age_us),
            str(one.steps),
            str(one.positions),
            Text(str(one.late), style="red" if one.late else ""),
            *(_ms(us) for us in (one.transfer_us, one.queue_us, one.compute_us, one.coordination_us)),
        )
    return table


def _table(*names: str) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for name in names:
        table.add_column(name, no_wrap=True)
    return table


def _numbers(table: Table, *names: str) -> None:
    for name in names:
        table.add_column(name, justify="right", no_wrap=True)


def _line(*parts: str | Text) -> Text:
    line = Text("   ").join(part if isinstance(part, Text) else Text(part) for part in parts)
    line.no_wrap, line.overflow = True, "ellipsis"
    return line


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _load(history: History) -> float:
    """The part of the last seconds that was spent in the layers."""
    last = history.busy_us[-LOAD_SAMPLES:]
    return min(1.0, sum(last) / (len(last) * history.interval_us)) if last and history.interval_us else 0.0


def _rate(history: History) -> float:
    """Steps a second, over the same seconds."""
    last = history.steps[-LOAD_SAMPLES:]
    return sum(last) * 1e6 / (len(last) * history.interval_us) if last and history.interval_us else 0.0


def _duration(duration_us: int) -> str:
    minutes, seconds = divmod(duration_us // 1_000_000, 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    clock = f"{hours}:{minutes:02}:{seconds:02}" if hours or days else f"{minutes}:{seconds:02}"
    return f"{days} d {clock}" if days else clock


def _ms(duration_us: int) -> str:
    return f"{duration_us / 1000:.1f}"


def _bytes(count: int) -> str:
    """Three digits and a unit, in powers of a thousand."""
    value = float(count)
    for unit in ("", "k", "M", "G"):
        if abs(value) < 1000:
            return f"{value:.1f}{unit}" if unit and abs(value) < 100 else f"{value:.0f}{unit}"
        value /= 1000
    return f"{value:.0f}T"


def _clean(text: str) -> str:
    """What a node says of itself and its peers, in one line and without what a terminal would obey."""
    return printable(text).replace("\n", " ").replace("\t", " ")
