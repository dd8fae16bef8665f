"""Everything in one run: time, nodes, links, connections, checks."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from hashlib import sha256
from itertools import count
from random import Random

from odsi_proto.statemachine.client import ClientEndpoint
from odsi_proto.statemachine.effects import SendStep
from odsi_proto.statemachine.session import Binding
from odsi_proto.statemachine.stage import StageEndpoint
from odsi_proto.testing.network import make_signer
from odsi_proto.testing.simulation import seeds
from odsi_proto.testing.simulation.checks import Checks
from odsi_proto.testing.simulation.client_process import ClientProcess
from odsi_proto.testing.simulation.faults import ROGUE_NODE, FaultKind
from odsi_proto.testing.simulation.heap import EventHeap
from odsi_proto.testing.simulation.link import Link
from odsi_proto.testing.simulation.log import Log
from odsi_proto.testing.simulation.port import Port
from odsi_proto.testing.simulation.process import Process
from odsi_proto.testing.simulation.result import Outcome, Reached
from odsi_proto.testing.simulation.scenario import Scenario
from odsi_proto.testing.simulation.stage_process import StageProcess
from odsi_proto.units import ConnectionId
from odsi_proto.wire.identity import Signer
from odsi_proto.wire.step import StepHeader
from odsi_proto.wire.varint import Cursor


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoints:
    """What the nodes are made of; tests of the checkers put something broken here."""

    stage: type[StageEndpoint] = StageEndpoint
    client: type[ClientEndpoint] = ClientEndpoint


class World:
    """One run while it lasts."""

    UNIX_S = 1_000_000
    """The wall clock when a run begins."""
    MODEL_ROOT = sha256(b"simulated model").digest()

    def __init__(self, scenario: Scenario, *, log: Log, endpoints: Endpoints) -> None:
        self.seed = scenario.seed
        self.plan = scenario.plan
        self.options = options = scenario.options
        self.limits = options.limits
        self.endpoints = endpoints
        self.heap = EventHeap()
        self.log = log
        self.coverage = Reached()
        self.outcomes: list[Outcome] = []
        self.flows = 0
        """Messages sent so far."""
        self.is_healed = False
        """Nothing goes wrong on purpose any more."""
        self.is_over = False
        """Every request has ended: nobody dials any more."""
        self.deviations = {
            fault.target: fault.name for fault in scenario.plan if fault.kind is FaultKind.ROGUE
        }
        """By node, what its rogue does."""
        self.has_rogue_stage = any(name in options.stage_names for name in self.deviations)
        self.checks = Checks(self)
        self.signers: Mapping[str, Signer] = {
            name: _signer(index)
            for names, first in ((options.client_names, 0), (options.stage_names, 100), ((ROGUE_NODE,), 200))
            for index, name in enumerate(names, first)
        }
        self._connections = count(1)
        self._links: dict[tuple[str, str], Link] = {}
        self._network = self.stream("network")
        self.stages = [StageProcess(self, name, index) for index, name in enumerate(options.stage_names)]
        self.clients = [ClientProcess(self, name) for name in options.client_names]
        rogues = [ClientProcess(self, ROGUE_NODE)] if ROGUE_NODE in self.deviations else []
        self.processes: dict[str, Process] = {
            node.name: node for node in (*self.clients, *self.stages, *rogues)
        }

    def stream(self, name: str) -> Random:
        """What the part called ``name`` draws from."""
        return seeds.stream(self.seed, name)

    def link(self, sender: str, receiver: str) -> Link:
        """The direction from one node to another."""
        link = self._links.get((sender, receiver))
        if link is None:
            options = self.options
            random = self.stream(f"link {sender} {receiver}")
            link = Link(self.heap, delay_us=options.delay_us, jitter_us=options.jitter_us, random=random)
            self._links[sender, receiver] = link
        return link

    def dial(
        self,
        dialler: Process,
        name: str,
        made: Callable[[ConnectionId], None],
        failed: Callable[[], None],
    ) -> None:
        """Connect to a node; ``failed`` comes after ``answer_us_max`` if it does not answer."""
        acceptor = self.processes[name]
        there, back = self.link(dialler.name, name), self.link(name, dialler.name)
        if there.is_cut or back.is_cut or acceptor.is_paused or not acceptor.is_up:
            dialler.later(self.limits.answer_us_max, failed)
            return
        rtt_us = there.delay_us + back.delay_us
        lives = dialler.incarnation, acceptor.incarnation
        self.heap.after(rtt_us, self._connect, dialler, acceptor, lives, made, failed)

    def _connect(
        self,
        dialler: Process,
        acceptor: Process,
        lives: tuple[int, int],
        made: Callable[[ConnectionId], None],
        failed: Callable[[], None],
    ) -> None:
        if dialler.incarnation != lives[0]:
            return
        there, back = self.link(dialler.name, acceptor.name), self.link(acceptor.name, dialler.name)
        is_gone = acceptor.incarnation != lives[1] or there.is_cut or back.is_cut
        if is_gone or dialler.is_paused or acceptor.is_paused:
            dialler.later(self.limits.answer_us_max, failed)
            return
        ports = [
            Port(self, process, ConnectionId(next(self._connections)), link, self._network)
            for process, link in ((dialler, there), (acceptor, back))
        ]
        ports[0].peer, ports[1].peer = ports[1], ports[0]
        signer = self.signers[acceptor.name]
        key = bytes(signer.hot_key.verify_key)
        certificate = sha256(b"certificate" + key).digest()
        # Either side may be told first, and one side's HELLO may be here when the other is.
        skews_us = (0, self._network.randint(0, there.delay_us))
        if self._network.random() < 0.5:
            skews_us = (skews_us[1], 0)
        for port, skew_us in zip(ports, skews_us, strict=True):
            is_dialler = port is ports[0]
            binding = Binding(
                is_dialler=is_dialler,
                acceptor_certificate_sha256=certificate,
                acceptor_key=key,
                expected=signer.participant if is_dialler else None,
            )
            port.made_us = self.heap.now_us + skew_us
            port.link.ports.append(port)
            process = port.process
            process.later(skew_us, process.connection_made, port, binding)
            rtt_us = there.delay_us + back.delay_us
            extra_us = self._network.randint(0, self.options.jitter_us)
            process.later(skew_us, process.rtt_measured, port, rtt_us + extra_us)
            process.later(skew_us + 2 * rtt_us + extra_us, process.rtt_measured, port, rtt_us)
        made(ports[0].connection)

    def again(self, effect: SendStep) -> SendStep:
        """The same step as a further attempt."""
        header = StepHeader.decode(Cursor(effect.header, 1))
        return replace(effect, header=replace(header, attempt=header.attempt + 1).encode())


@lru_cache(maxsize=256)
def _signer(index: int) -> Signer:
    """Keys are the same in every run; making a pair takes as long as a hundred events."""
    return make_signer(index)
