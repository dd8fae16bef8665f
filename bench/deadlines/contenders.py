"""The transports by name. Each is credited by itself: what two of them differ in is named here."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import odsi_proto.node.congestion  # noqa: F401  # registers "delay" with aioquic
from bench.deadlines.ours import QueueTransport
from bench.deadlines.scenario import Scenario
from bench.deadlines.transports import OrderedTransport, StockTransport, Transport
from odsi_proto.node.uplink import Uplink

UPLINK_PART = 0.98
"""Of the rate of the bottleneck: what a careful operator would configure."""


class Contender(NamedTuple):
    """A transport of the comparison."""

    title: str
    congestion: str
    build: Callable[[Scenario, str], Transport]

    def open(self, scenario: Scenario) -> Transport:
        """The sending side of a node in a scenario."""
        return self.build(scenario, self.congestion)


def _stock(scenario: Scenario, congestion: str) -> Transport:
    return StockTransport(scenario.peers, congestion=congestion, datagram_bytes=scenario.datagram_bytes)


def _ordered(scenario: Scenario, congestion: str) -> Transport:
    return OrderedTransport(scenario.peers, congestion=congestion, datagram_bytes=scenario.datagram_bytes)


def _queue(scenario: Scenario, congestion: str, uplink: Callable[[Scenario], Uplink]) -> Transport:
    return QueueTransport(
        scenario.peers,
        congestion=congestion,
        datagram_bytes=scenario.datagram_bytes,
        uplink=uplink(scenario),
    )


def _learned(_: Scenario) -> Uplink:
    return Uplink()


def _no_uplink(_: Scenario) -> Uplink:
    return Uplink(learns=False)


def _configured(scenario: Scenario) -> Uplink:
    return Uplink(UPLINK_PART * scenario.rate_mbit * 1e6 / 8)


OURS = "odsi"
OURS_WITH_RENO = "odsi-reno"
STOCK = "stock-reno"

CONTENDERS = {
    OURS: Contender(
        "the node's queue in order of deadlines, delay controller, learned uplink budget",
        "delay",
        partial(_queue, uplink=_learned),
    ),
    "odsi-uplink-off": Contender(
        "the same without an uplink budget", "delay", partial(_queue, uplink=_no_uplink)
    ),
    "odsi-uplink-set": Contender(
        f"the same with an uplink budget of {UPLINK_PART:.0%} of the rate at the beginning",
        "delay",
        partial(_queue, uplink=_configured),
    ),
    OURS_WITH_RENO: Contender(
        "the node's queue, reno in place of the controller, learned uplink budget",
        "reno",
        partial(_queue, uplink=_learned),
    ),
    "odsi-no-edf": Contender("aioquic's turns in place of the queue, delay controller", "delay", _stock),
    STOCK: Contender("aioquic, a stream per message, reno", "reno", _stock),
    "stock-cubic": Contender("aioquic, a stream per message, cubic", "cubic", _stock),
    "ordered-reno": Contender("one ordered stream, reno", "reno", _ordered),
    "ordered-cubic": Contender("one ordered stream, cubic", "cubic", _ordered),
}
