"""A run drawn as a sequence diagram: one HTML file that needs no network and nothing beside it.

Every node has a lane, time runs downwards, an arrow leads from a send to its receive, faults and
phases are bands. The drawing is made in the browser, only for what is in sight, so a run of fifty
thousand events opens as fast as one of fifty. The same page holds the whole log as text, for
readers without scripts, for screen readers and for the search of the browser.

Text of events is hostile, peers chose parts of it: that is the business of :mod:`odsi_proto.page`.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from importlib import resources
from itertools import islice
from typing import Protocol

from odsi_proto.page import clean, page, shown

EVENTS_MAX = 50_000
"""Events in one page, about 15 MB; of a longer run the last ones are drawn, because a failure is there."""

RUN_NODES = ("run", "network")
"""What happens to these happens to everybody: they have no lane, their events lie across all."""


class Event(Protocol):
    """One line of a log: what :class:`odsi_proto.testing.simulation.LogEvent` has."""

    @property
    def at_us(self) -> int:
        """Microseconds since the run began."""

    @property
    def node(self) -> str:
        """Where it happened."""

    @property
    def kind(self) -> str:
        """``send``, ``receive``, ``timer``, ``fault``, ``phase``, ``check``, ..."""

    @property
    def text(self) -> str:
        """What happened, in one line."""

    @property
    def peer(self) -> str:
        """The other end of a send or a receive; empty otherwise."""

    @property
    def flow(self) -> int:
        """Joins a send with its receives; 0 for none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What a checker found; the page leads to it."""

    check: str
    specs: tuple[str, ...]
    at_us: int
    node: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """Something that lasted: a partition, a pause, a crash until the restart."""

    node: str
    """A lane; a node without one (``network``) spans all."""
    from_us: int
    to_us: int
    label: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Heading:
    """What stands above the drawing."""

    title: str
    facts: tuple[tuple[str, str], ...] = ()
    """Names and values, such as the seed and the simulated time."""
    finding: Finding | None = None
    """None if every check held."""
    commands: tuple[str, ...] = ()
    """What to type next."""


def named_request(event: Event) -> str:
    """The request that an event is about, if its text says ``request-0`` or ``request 1a2b3c4d``."""
    found = _REQUEST.search(event.text)
    return f"request {found[1]}" if found else ""


def diagram(
    events: Iterable[Event],
    heading: Heading,
    *,
    spans: Sequence[Span] = (),
    request_of: Callable[[Event], str] = named_request,
) -> str:
    """The page for a run; of more than :data:`EVENTS_MAX` events the last ones, and it says so.

    ``request_of`` is asked once for every event, in their order; the page can be filtered by its answers.
    """
    every = list(events)
    drawn = every[-EVENTS_MAX:]
    left_out = len(every) - len(drawn)
    return page(
        _resource("diagram.html"),
        title=heading.title,
        style=_resource("diagram.css"),
        script=_resource("diagram.js"),
        data=_data(drawn, heading, spans, request_of),
        heading=_heading(heading, left_out),
        log="\n".join(shown(_line(event)) for event in drawn),
    )


def lanes_of(events: Iterable[Event]) -> tuple[str, ...]:
    """The nodes that get a lane: clients, then stages, then others, each by number."""
    nodes: dict[str, None] = {}
    for event in events:
        for name in (event.node, event.peer):
            if name and name not in RUN_NODES:
                nodes.setdefault(name)
    return tuple(sorted(nodes, key=_lane_order))


def _lane_order(name: str) -> tuple[int, str, int]:
    role, _, number = name.rpartition("-")
    rank = {"client": 0, "stage": 1}.get(role, 2)
    return (rank, role, int(number)) if number.isascii() and number.isdecimal() else (rank, name, 0)


def _data(
    events: Sequence[Event], heading: Heading, spans: Sequence[Span], request_of: Callable[[Event], str]
) -> object:
    lanes = lanes_of(events)
    lane = {name: index for index, name in enumerate(lanes)}
    finding = heading.finding
    return {
        "lanes": [clean(name) for name in lanes],
        # Columns in the order of `diagram.js`; a node without a lane is -1.
        "events": [
            [
                event.at_us,
                lane.get(event.node, -1),
                event.kind,
                clean(event.text),
                lane.get(event.peer, -1),
                event.flow,
                clean(request_of(event)),
            ]
            for event in events
        ],
        "spans": [
            [lane.get(span.node, -1), span.from_us, span.to_us, clean(span.label)]
            for span in islice(spans, EVENTS_MAX)
        ],
        "finding": None if finding is None else [finding.at_us, lane.get(finding.node, -1), finding.check],
    }


def _heading(heading: Heading, left_out: int) -> str:
    finding = heading.finding
    verdict = '<span class="held">held</span>' if finding is None else '<span class="failed">failed</span>'
    lines = [f"<h1>{shown(heading.title)} {verdict}</h1>", '<dl class="facts">']
    lines += [f"<div><dt>{shown(name)}</dt><dd>{shown(value)}</dd></div>" for name, value in heading.facts]
    lines.append("</dl>")
    if finding is not None:
        specs = ", ".join(finding.specs) or "no rule"
        where = f"{specs} · {finding.node or 'the run'} at {_time(finding.at_us)}"
        lines += [
            '<section class="finding" aria-label="what failed">',
            f"<h2>{shown(finding.check)}</h2>",
            f"<p>{shown(finding.text)}</p>",
            f'<p class="where">{shown(where)} <button type="button" id="to-finding">Show where</button></p>',
            "</section>",
        ]
    if heading.commands:
        typed = "\n".join(heading.commands)
        lines.append(f'<pre class="commands">{shown(typed)}</pre>')
    if left_out:
        lines.append(f'<p class="left-out">The first {left_out:,} events are left out; the log has them.</p>')
    return "\n".join(lines)


def _line(event: Event) -> str:
    return str(event).replace("\n", " ")


def _time(at_us: int) -> str:
    return f"{at_us / 1_000:,.3f} ms"


_REQUEST = re.compile(r"\brequest[- ]([0-9a-f]+)\b")


def _resource(name: str) -> str:
    return resources.files("odsi_proto.testing").joinpath(name).read_text(encoding="utf-8")
