"""The scenarios that are run, by name of a group. A group varies one thing."""

from collections.abc import Callable, Iterator
from dataclasses import replace

from bench.deadlines.scenario import Queue, Scenario

QUICK_S = 10.0
DEPTHS_MS = (1.0, 2.0, 5.0, 10.0, 20.0, 40.0)


def _quick(base: Scenario) -> Iterator[Scenario]:
    """One of each kind, short: a minute on two cores."""
    short = replace(base, duration_s=min(base.duration_s, QUICK_S))
    yield short
    yield replace(short, depth_ms=2)
    yield replace(short, elsewhere=4)
    yield replace(short, loss=0.01)


def _depth(base: Scenario) -> Iterator[Scenario]:
    """FIFO from 1 to 40 ms."""
    for depth_ms in DEPTHS_MS:
        yield replace(base, depth_ms=depth_ms)


def _bulk(base: Scenario) -> Iterator[Scenario]:
    """Bulk transfers from 1 to 64, on the activations' connection."""
    for transfers in (1, 4, 64):
        yield replace(base, bulk=transfers)


def _elsewhere(base: Scenario) -> Iterator[Scenario]:
    """The same bulk on other connections of the node."""
    for connections in (1, 2, 4, 8):
        yield replace(base, elsewhere=connections)


def _loss(base: Scenario) -> Iterator[Scenario]:
    """Random and burst loss."""
    for loss in (0.001, 0.01, 0.03):
        yield replace(base, loss=loss)
    yield replace(base, loss=0.01, burst_packets=8)


def _queues(base: Scenario) -> Iterator[Scenario]:
    """CoDel, and a policer."""
    yield replace(base, queue=Queue.CODEL)
    yield replace(base, queue=Queue.POLICER, depth_ms=10)


def _jitter(base: Scenario) -> Iterator[Scenario]:
    """Jitter, without and with reordering."""
    yield replace(base, jitter_ms=4)
    yield replace(base, jitter_ms=4, reorders=True)


def _compete(base: Scenario) -> Iterator[Scenario]:
    """Other hosts' reno and cubic through the same bottleneck."""
    for congestion in ("reno", "cubic"):
        for hosts in (1, 4):
            yield replace(base, competitors=hosts, competing=congestion)


def _change(base: Scenario) -> Iterator[Scenario]:
    """Rate or route change a third into the run."""
    third_s = round(base.duration_s / 3, 3)
    for rate, rtt in ((0.5, 1.0), (2.0, 1.0), (1.0, 1.5), (1.0, 0.5)):
        yield replace(
            base,
            change_at_s=third_s,
            rate_after_mbit=base.rate_mbit * rate,
            rtt_after_ms=base.rtt_ms * rtt,
        )


GROUPS: dict[str, Callable[[Scenario], Iterator[Scenario]]] = {
    "quick": _quick,
    "depth": _depth,
    "bulk": _bulk,
    "elsewhere": _elsewhere,
    "loss": _loss,
    "queues": _queues,
    "jitter": _jitter,
    "compete": _compete,
    "change": _change,
}
ALL = tuple(name for name in GROUPS if name != "quick")


def scenarios(names: list[str], base: Scenario) -> list[Scenario]:
    """Of these groups, in order, none twice."""
    found: dict[Scenario, Scenario] = {}
    for name in names:
        for scenario in GROUPS[name](replace(base, group=name)):
            found.setdefault(replace(scenario, group=""), scenario)
    return list(found.values())
