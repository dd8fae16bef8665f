"""A client and two stages on a network whose every delivery a test decides."""

from collections.abc import Iterator
from dataclasses import dataclass, field

from properties.scripted import (
    CLIENT,
    MODEL_ROOT,
    UNIX_S_AT_ZERO,
    WIDTH,
    Choices,
    check_invariants,
    frames_of,
)

from odsi_proto.limits import Limits
from odsi_proto.statemachine.admission import StageOffer
from odsi_proto.statemachine.client import ClientEndpoint
from odsi_proto.statemachine.effects import (
    Close,
    Effect,
    RequestFailed,
    Reserve,
    RowsArrived,
    Run,
    SendControl,
    SendStep,
)
from odsi_proto.statemachine.endpoint import Endpoint
from odsi_proto.statemachine.session import Binding, SelfDescription
from odsi_proto.statemachine.stage import StageEndpoint
from odsi_proto.testing.strategies import signer_of
from odsi_proto.units import ConnectionId, LayerRange, Micros, Position, RequestId
from odsi_proto.wire import frames as wire
from odsi_proto.wire.codepoints import ErrorCode, Role
from odsi_proto.wire.messages import Offer

CONTROL = 0

HONEST_CODES = frozenset(
    {ErrorCode.PEER_LOST, ErrorCode.EXPIRED, ErrorCode.MISSING_STEP, ErrorCode.NO_ROUTE, ErrorCode.CANCELLED}
)
"""Why a request may fail where everybody is honest and only the network is bad."""


@dataclass
class Link:
    """One connection, as its two ends name it."""

    ends: tuple[tuple[str, ConnectionId], tuple[str, ConnectionId]]
    is_cut: bool = False
    unaware: list[tuple[str, ConnectionId]] = field(default_factory=list)
    """Ends that have not noticed that it is gone."""

    def other(self, end: tuple[str, ConnectionId]) -> tuple[str, ConnectionId]:
        return self.ends[1] if end == self.ends[0] else self.ends[0]


@dataclass
class Pipe:
    """Bytes of one stream that are on their way to ``node``."""

    node: str
    connection: ConnectionId
    stream: int
    pieces: list[tuple[bytes, bool]] = field(default_factory=list)


class LossyPath:
    """Endpoints, what is under way between them, and what must hold whatever is delivered when."""

    def __init__(self, limits: Limits) -> None:
        self.now = Micros(1_000_000)
        self.nodes: dict[str, Endpoint] = {
            "client": _client(limits),
            **{f"stage-{i}": _stage(limits, i) for i in (0, 1)},
        }
        self.links: list[Link] = []
        self.pipes: dict[tuple[str, ConnectionId, int], Pipe] = {}
        self.jobs: dict[str, list[Reserve | Run]] = {"stage-0": [], "stage-1": []}
        self.rows: dict[tuple[RequestId, int], bytes] = {}
        self.failed: dict[RequestId, RequestFailed] = {}
        self.ran: dict[tuple[str, RequestId], list[int]] = {}
        self.budgets: dict[tuple[str, RequestId, int], int] = {}
        self.steps_count = 0
        self.names: dict[tuple[str, ConnectionId], Link] = {}
        self.first = self.connect("client", "stage-0")
        self.last = self.connect("client", "stage-1")
        self.connect("stage-0", "stage-1")
        self.deliver_all()

    @property
    def client(self) -> ClientEndpoint:
        endpoint = self.nodes["client"]
        assert isinstance(endpoint, ClientEndpoint)
        return endpoint

    def stage(self, name: str) -> StageEndpoint:
        endpoint = self.nodes[name]
        assert isinstance(endpoint, StageEndpoint)
        return endpoint

    def connect(self, dialler: str, acceptor: str) -> ConnectionId:
        """Connect two nodes; the dialler's name for it."""
        number = 2 * len(self.links) + 1
        link = Link(((dialler, ConnectionId(number)), (acceptor, ConnectionId(number + 1))))
        self.links.append(link)
        key = bytes(self.nodes[acceptor].about.signer.hot_key.verify_key)
        for name, connection in link.ends:
            self.names[name, connection] = link
        for is_dialler, (name, connection) in zip((True, False), link.ends, strict=True):
            binding = Binding(is_dialler=is_dialler, acceptor_certificate_sha256=bytes(32), acceptor_key=key)
            self.perform(name, self.nodes[name].connection_made(connection, binding, now=self.now))
        return link.ends[0][1]

    def perform(self, name: str, effects: tuple[Effect, ...]) -> None:
        """Put what a node asked for under way."""
        for effect in effects:
            match effect:
                case SendControl(connection=connection, data=data):
                    self._send(name, connection, CONTROL, data, fin=False)
                    self._look(data)
                case SendStep(connection=connection, header=header, payload=payload):
                    self.steps_count += 1
                    self._send(name, connection, 4 * self.steps_count + 2, header + bytes(payload), fin=True)
                case Reserve() | Run():
                    self._queue(name, effect)
                case RowsArrived(request=request, position=position, payload=rows):
                    assert (request, position) not in self.rows, "rows twice"
                    assert request not in self.failed, "rows after failure"
                    self.rows[request, position] = bytes(rows)
                case RequestFailed(request=request, code=code):
                    assert request not in self.failed, "failed twice"
                    assert code in HONEST_CODES, effect
                    self.failed[request] = effect
                case Close():
                    raise AssertionError(f"{name} blames an honest peer: {effect}")
                case _:
                    pass

    def _queue(self, name: str, job: Reserve | Run) -> None:
        """STEP-034 and STEP-012: each position once, in order."""
        self.jobs[name].append(job)
        if isinstance(job, Reserve):
            assert (name, job.request) not in self.ran, "reserved twice"
            self.ran[name, job.request] = [0]
            return
        ends = self.ran[name, job.request]
        assert job.position == ends[-1], f"{name} runs {job.position} after {ends}"
        ends.append(job.position + job.count)
        self.budgets[name, job.request, job.position] = job.remaining_us
        if name == "stage-1":
            assert job.remaining_us <= self.budgets["stage-0", job.request, job.position], "a budget grew"

    def _look(self, data: bytes) -> None:
        for frame in frames_of(data):
            if isinstance(frame, wire.RefuseFrame):
                assert frame.code in HONEST_CODES, frame

    def _send(self, name: str, connection: ConnectionId, stream: int, data: bytes, *, fin: bool) -> None:
        link = self.names[name, connection]
        if link.is_cut:
            return
        node, far = link.other((name, connection))
        pipe = self.pipes.setdefault((node, far, stream), Pipe(node, far, stream))
        pipe.pieces.append((data, fin))

    def deliver(self, which: int, size: int | None) -> None:
        """The next bytes of one stream that has some, at most ``size`` of them."""
        keys = sorted(self.pipes)
        if not keys:
            return
        pipe = self.pipes[keys[which % len(keys)]]
        data, fin = pipe.pieces.pop(0)
        if size is not None and size < len(data):
            pipe.pieces.insert(0, (data[size:], fin))
            data, fin = data[:size], False
        if not pipe.pieces:
            del self.pipes[pipe.node, pipe.connection, pipe.stream]
        endpoint = self.nodes[pipe.node]
        self.perform(
            pipe.node, endpoint.stream_data(pipe.connection, pipe.stream, data, fin=fin, now=self.now)
        )

    def work(self, name: str) -> None:
        """The executor of a stage does the oldest thing that it has to do."""
        if not self.jobs[name]:
            return
        job, stage = self.jobs[name].pop(0), self.stage(name)
        match job:
            case Reserve():
                self.perform(name, stage.reserved(job.request, now=self.now))
            case Run():
                wanted = len(job.payload) // job.count * job.rows_out_max
                rows = bytes((byte + 1) % 256 for byte in job.payload)[-wanted:]
                done = stage.output(
                    job.request,
                    Position(job.position),
                    memoryview(rows),
                    started_us=self.now,
                    finished_us=self.now,
                    now=self.now,
                )
                self.perform(name, done)

    def deliver_all(self) -> None:
        """Until nothing is under way; no time passes."""
        for _ in range(10_000):
            if self.pipes:
                self.deliver(0, None)
            elif any(self.jobs.values()):
                for name in self.jobs:
                    self.work(name)
            else:
                return
        raise AssertionError("still busy")

    def pass_until(self, until: int) -> None:
        """Timers fire in order of time."""
        for _ in range(10_000):
            due = [(d[0], name) for name, node in self.nodes.items() if (d := node.next_deadline) is not None]
            at, name = min(due, default=(until + 1, ""))
            if at > until:
                self.now = Micros(max(self.now, until))
                return
            self.now = Micros(max(self.now, at))
            self.perform(name, self.nodes[name].timer(now=self.now))
        raise AssertionError("timers fire for ever")

    def cut(self, which: int, aware: int) -> None:
        """Lose a connection and all that is on it; ``aware`` (0, 1, 2 for both) says who notices now."""
        link = self.links[which % len(self.links)]
        if link.is_cut:
            return
        link.is_cut, link.unaware = True, list(link.ends)
        self.pipes = {key: pipe for key, pipe in self.pipes.items() if key[:2] not in link.ends}
        for end in list(link.ends) if aware == 2 else [link.ends[aware]]:
            self.notice(link, end)

    def notice(self, link: Link, end: tuple[str, ConnectionId]) -> None:
        """One end learns that its connection is gone."""
        link.unaware.remove(end)
        self.perform(end[0], self.nodes[end[0]].connection_lost(end[1], "gone", now=self.now))

    def unaware(self) -> Iterator[tuple[Link, tuple[str, ConnectionId]]]:
        """Ends that send into nothing."""
        return ((link, end) for link in self.links for end in tuple(link.unaware))

    def check(self) -> None:
        """The named invariants of every endpoint."""
        for endpoint in self.nodes.values():
            check_invariants(endpoint)


def _client(limits: Limits) -> ClientEndpoint:
    about = SelfDescription(signer=CLIENT, roles=(Role.CLIENT,))
    return ClientEndpoint(about=about, limits=limits, choices=Choices(), unix_s_at_zero=UNIX_S_AT_ZERO)


def _stage(limits: Limits, index: int) -> StageEndpoint:
    layers = LayerRange(10 * index, 10 * index + 10)
    about = SelfDescription(
        signer=signer_of(index + 1),
        roles=(Role.EXECUTION_NODE,),
        offers=(Offer(layers=layers, model_root=MODEL_ROOT),),
    )
    offer = StageOffer(layers=layers, model_root=MODEL_ROOT, width=WIDTH, positions_max=64)
    return StageEndpoint(
        about=about, offer=offer, limits=limits, choices=Choices(), unix_s_at_zero=UNIX_S_AT_ZERO
    )
