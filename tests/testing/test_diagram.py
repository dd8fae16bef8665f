"""The drawing of a run: what is in the page, and that nothing in a run can get out of it."""

import base64
import hashlib
import json
import re
from dataclasses import dataclass
from html.parser import HTMLParser
from typing import Any

import pytest

from odsi_proto.testing import diagram as module
from odsi_proto.testing.diagram import EVENTS_MAX, Finding, Heading, Span, diagram, lanes_of

HOSTILE = (
    "</script></pre><script>alert(1)</script><img src=x onerror=alert(2)>&amp;{{data}}\x00\x1b[2J\u202e\ud800"
)


@dataclass(frozen=True)
class Line:
    """A line of a log."""

    at_us: int
    node: str
    kind: str
    text: str
    peer: str = ""
    flow: int = 0

    def __str__(self) -> str:
        return f"{self.at_us} {self.node} {self.kind} {self.text}"


STEP = (
    Line(0, "client-0", "send", "STEP request-0 position=7", peer="stage-0", flow=1),
    Line(1_500, "stage-0", "receive", "STEP request-0 position=7", peer="client-0", flow=1),
)


class Page(HTMLParser):
    """What a browser would make of a page, as far as the tests ask."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: dict[str, str] = {}
        self._open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        found = dict(attributes)
        self.tags.append((tag, found))
        if tag not in {"meta", "input", "link", "img", "br"}:
            self._open.append(found.get("id") or tag)

    def handle_endtag(self, tag: str) -> None:
        self._open.pop()

    def handle_data(self, data: str) -> None:
        if self._open:
            self.words[self._open[-1]] = self.words.get(self._open[-1], "") + data

    @property
    def data(self) -> dict[str, Any]:
        content: dict[str, Any] = json.loads(self.words["data"])
        return content


def page(*events: Line, heading: Heading | None = None, spans: tuple[Span, ...] = ()) -> Page:
    return Page(diagram(events, heading or Heading(title="a run"), spans=spans))


def test_a_send_and_its_receive_share_a_flow_and_name_their_lanes() -> None:
    content = page(*STEP).data
    assert content["lanes"] == ["client-0", "stage-0"]
    assert content["events"] == [
        [0, 0, "send", "STEP request-0 position=7", 1, 1, "request 0"],
        [1_500, 1, "receive", "STEP request-0 position=7", 0, 1, "request 0"],
    ]


def test_the_whole_log_is_text_in_the_page() -> None:
    assert page(*STEP).words["pre"].splitlines() == [str(event) for event in STEP]


def test_clients_come_before_stages_and_the_run_has_no_lane() -> None:
    names = ("rogue", "stage-10", "network", "stage-2", "run", "client-1")
    assert lanes_of(Line(0, name, "timer", "") for name in names) == (
        "client-1",
        "stage-2",
        "stage-10",
        "rogue",
    )


def test_events_of_the_network_lie_across_all_lanes() -> None:
    content = page(
        *STEP,
        Line(2, "network", "fault", "partition"),
        spans=(Span(node="network", from_us=2, to_us=9, label="partition"),),
    ).data
    assert content["events"][2][1] == -1
    assert content["spans"] == [[-1, 2, 9, "partition"]]


@pytest.mark.parametrize("place", ["text", "node", "kind", "title", "fact", "finding", "command", "span"])
def test_hostile_text_stays_text(place: str) -> None:
    def at(here: str) -> str:
        return HOSTILE if place == here else "plain"

    heading = Heading(
        title=at("title"),
        facts=((at("fact"), at("fact")),),
        finding=Finding(
            check=at("finding"), specs=(at("finding"),), at_us=3, node=at("finding"), text=at("finding")
        ),
        commands=(at("command"),),
    )
    event = Line(3, at("node"), at("kind"), at("text"))
    made = diagram((event,), heading, spans=(Span(node="x", from_us=0, to_us=1, label=at("span")),))
    assert not set("\x00\x1b\u202e\ud800") & set(made)
    made.encode()
    read = Page(made)
    assert [tag for tag, _ in read.tags].count("script") == 2
    assert "img" not in {tag for tag, _ in read.tags}
    assert read.data["events"]


def test_only_the_script_of_the_page_may_run() -> None:
    read = page(*STEP)
    policy = next(found["content"] for tag, found in read.tags if found.get("http-equiv"))
    assert policy is not None
    assert policy.startswith("default-src 'none';")
    allowed = re.search(r"'sha256-([^']+)'", policy)
    assert allowed is not None
    digest = hashlib.sha256(read.words["script"].encode()).digest()
    assert allowed[1] == base64.b64encode(digest).decode()


def test_the_page_needs_nothing_beside_it() -> None:
    made = diagram(STEP, Heading(title="a run"))
    links = [found for _, found in Page(made).tags if {"src", "href"} & set(found)]
    assert [found.get("href") for found in links] == ["#log"]
    assert "url(" not in made
    assert "@import" not in made


def test_what_failed_stands_above_the_drawing() -> None:
    finding = Finding(
        check="order", specs=("STEP-003", "STEP-009"), at_us=1_500, node="stage-0", text="7 before 6"
    )
    made = diagram(STEP, Heading(title="a run", finding=finding, commands=("odsi sim replay x.json",)))
    assert "STEP-003, STEP-009 · stage-0 at 1.500 ms" in made
    assert "odsi sim replay x.json" in made
    assert Page(made).data["finding"] == [1_500, 1, "order"]


def test_of_a_run_that_is_too_long_the_end_is_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "EVENTS_MAX", 3)
    events = [Line(at, "stage-0", "timer", f"timer {at}") for at in range(4)]
    assert "left out" not in diagram(events[:3], Heading(title="a run"))
    made = diagram(events, Heading(title="a run"))
    assert "The first 1 events are left out" in made
    assert [event[0] for event in Page(made).data["events"]] == [1, 2, 3]


def test_ten_thousand_events_make_a_page_of_a_few_megabytes() -> None:
    events = [event for flow in range(5_000) for event in STEP]
    assert len(events) < EVENTS_MAX
    assert len(diagram(events, Heading(title="a run"))) < 4 << 20


def test_a_run_without_events_is_a_page() -> None:
    assert page().data == {"lanes": [], "events": [], "spans": [], "finding": None}
