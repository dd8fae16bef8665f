"""Where a script happens: participants, connections whose bytes can be withheld, virtual time.

Bytes sent at t arrive at t + delay unless their direction is held; then they wait until the script
delivers them, whole or cut, in any order of streams. After each command the world settles: it runs
until nothing is under way. Timers fire when time passes their deadline, and each is in the log.
"""

import heapq
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from hashlib import sha256
from itertools import count

from odsi_proto.limits import Limits
from odsi_proto.statemachine import effects as fx
from odsi_proto.statemachine.admission import StageOffer
from odsi_proto.statemachine.client import ClientEndpoint
from odsi_proto.statemachine.session import Binding, Choices, SelfDescription
from odsi_proto.statemachine.stage import StageEndpoint
from odsi_proto.testing.network import make_signer
from odsi_proto.testing.script_log import Log, describe_effect
from odsi_proto.testing.script_names import Names
from odsi_proto.testing.script_wire import Changes, Flow, Outgoing
from odsi_proto.testing.script_words import CommandError
from odsi_proto.units import ConnectionId, LayerRange, Micros, RequestId
from odsi_proto.wire.codepoints import Role
from odsi_proto.wire.frames import AttachFrame, CancelFrame, CommitFrame, OpenFrame
from odsi_proto.wire.identity import SignedMessage, Signer
from odsi_proto.wire.messages import Cancel, Offer, Open
from odsi_proto.wire.step import StepHeader
from odsi_proto.wire.tensor import ActivationCodec, ActivationLayout
from odsi_proto.wire.varint import Cursor

WIDTH = 4
LAYERS_EACH = 10
CONTEXT_POSITIONS = 64
MODEL_ROOT = bytes(range(32))
LAYOUT = ActivationLayout(codec=ActivationCodec.F32, width=WIDTH)
UNIX_S_AT_ZERO = 1_000_000
START_US = Micros(0)
EVENTS_MAX = 100_000
"""Events that one command may lead to: a loop of two endpoints ends as an error."""


@dataclass(slots=True, kw_only=True)
class Asked:
    """What an executor owes an answer to."""

    effect: fx.Reserve | fx.Run
    at_us: Micros


@dataclass(slots=True, kw_only=True)
class Node:
    """One participant."""

    name: str
    endpoint: StageEndpoint | ClientEndpoint
    signer: Signer
    compute_us: Micros | None = Micros(0)
    """How long the executor takes for a step; None: it answers when the script says so."""
    busy_until_us: Micros = START_US
    asked: list[Asked] = field(default_factory=list)
    """Oldest first; only of an executor that the script answers for."""


@dataclass(slots=True)
class World:
    """Everything that a script acts on."""

    now: Micros = START_US
    nodes: dict[str, Node] = field(default_factory=dict)
    names: Names = field(default_factory=Names)
    log: Log = field(init=False)
    flows: list[Flow] = field(default_factory=list)
    """Both directions of every connection, newest last."""
    held: set[tuple[str, str]] = field(default_factory=set)
    """Directions whose bytes wait, connections to come included."""
    delay_us: Micros = Micros(1_000)
    opens: dict[RequestId, bytes] = field(default_factory=dict)
    """The signed OPEN of each request."""
    commits: dict[tuple[RequestId, int], bytes] = field(default_factory=dict)
    cancels: dict[RequestId, bytes] = field(default_factory=dict)
    latest: RequestId | None = None
    """The request opened last."""
    _changes: dict[tuple[str, str], Changes] = field(default_factory=dict)
    _queue: list[tuple[int, int, Callable[[], None]]] = field(default_factory=list)
    _order: Iterator[int] = field(default_factory=count)
    _connections: Iterator[int] = field(default_factory=lambda: count(1))

    def __post_init__(self) -> None:
        self.log = Log(self.names)

    def add_client(self, name: str, limits: Limits) -> None:
        """A client; its keys follow from its name."""
        signer = _signer(name)
        endpoint = ClientEndpoint(
            about=SelfDescription(signer=signer, roles=(Role.CLIENT,)),
            limits=limits,
            choices=_choices(name),
            unix_s_at_zero=UNIX_S_AT_ZERO,
        )
        self._add(Node(name=name, endpoint=endpoint, signer=signer))

    def add_stage(self, name: str, layers: LayerRange, limits: Limits) -> None:
        """An execution node of the one model that scripts know."""
        signer = _signer(name)
        endpoint = StageEndpoint(
            about=SelfDescription(
                signer=signer,
                roles=(Role.EXECUTION_NODE,),
                offers=(Offer(layers=layers, model_root=MODEL_ROOT),),
            ),
            offer=StageOffer(
                layers=layers, model_root=MODEL_ROOT, width=WIDTH, positions_max=CONTEXT_POSITIONS
            ),
            limits=limits,
            choices=_choices(name),
            unix_s_at_zero=UNIX_S_AT_ZERO,
        )
        self._add(Node(name=name, endpoint=endpoint, signer=signer))

    def node(self, name: str) -> Node:
        """The participant of that name."""
        if name not in self.nodes:
            known = ", ".join(self.nodes) or "none: begin with 'path'"
            raise CommandError(f"no participant {name!r}; there are {known}")
        return self.nodes[name]

    def client(self, name: str) -> ClientEndpoint:
        """The client of that name."""
        endpoint = self.node(name).endpoint
        if not isinstance(endpoint, ClientEndpoint):
            raise CommandError(f"{name} is no client")
        return endpoint

    def stage(self, name: str) -> StageEndpoint:
        """The execution node of that name."""
        endpoint = self.node(name).endpoint
        if not isinstance(endpoint, StageEndpoint):
            raise CommandError(f"{name} is no stage")
        return endpoint

    def flow(self, sender: str, receiver: str) -> Flow:
        """The direction of the newest connection between two participants that is not closed."""
        self.node(sender), self.node(receiver)
        between = [flow for flow in self.flows if (flow.sender, flow.receiver) == (sender, receiver)]
        if not between:
            raise CommandError(f"{sender} and {receiver} are not connected")
        return next((flow for flow in reversed(between) if not flow.is_cut), between[-1])

    def changes(self, sender: str, receiver: str) -> Changes:
        """What is to be altered from one participant to another."""
        return self._changes.setdefault((sender, receiver), Changes())

    def connect(
        self, dialler: str, acceptor: str, *, expected: str | None = None, key_of: str | None = None
    ) -> None:
        """Connect two participants, as if TLS had proved the acceptor's key, or that of ``key_of``."""
        ends = (self.node(dialler), self.node(acceptor))
        connections = [ConnectionId(next(self._connections)) for _ in ends]
        number = 1 + sum(
            (f.sender, f.receiver) in {(dialler, acceptor), (acceptor, dialler)} for f in self.flows
        )
        label = "" if number == 1 else f"#{1 + number // 2}"
        there = Flow(
            dialler, acceptor, connections[0], connections[1], self.changes(dialler, acceptor), 2, label
        )
        back = Flow(
            acceptor, dialler, connections[1], connections[0], self.changes(acceptor, dialler), 3, label
        )
        there.opposite, back.opposite = back, there
        self.flows += [there, back]
        for node, connection, is_dialler in zip(ends, connections, (True, False), strict=True):
            binding = Binding(
                is_dialler=is_dialler,
                acceptor_certificate_sha256=bytes(32),
                acceptor_key=bytes(self.node(key_of or acceptor).signer.hot_key.verify_key),
                expected=self.node(expected).signer.participant if is_dialler and expected else None,
            )
            self.perform(node, node.endpoint.connection_made(connection, binding, now=self.now))

    def perform(self, node: Node, effects: tuple[fx.Effect, ...]) -> None:
        """Log and carry out what a mutator returned."""
        for effect in effects:
            match effect:
                case fx.SendControl():
                    flow = self.flow_of(effect.connection)
                    self.send(flow, flow.control(effect.data))
                case fx.SendStep():
                    flow = self.flow_of(effect.connection)
                    self._learn_tags(flow, effect)
                    self.send(flow, flow.step(effect))
                case fx.StopStream():
                    flow = self.flow_of(effect.connection).other
                    what = f"stops {flow.stream_name(effect.stream)} of {flow.sender}{flow.label}"
                    self.log.line(self.now, node.name, what)
                case _:
                    text, more = describe_effect(self.names, effect, self._peer(effect))
                    if text:
                        self.log.line(self.now, node.name, text, *more)
            match effect:
                case fx.StopStream():
                    self._stop(self.flow_of(effect.connection), effect.stream)
                case fx.Close():
                    self._close(self.flow_of(effect.connection), effect.reason)
                case fx.Reserve() | fx.Run():
                    self._ask(node, effect)
                case _:
                    pass  # sent above, or an event for the caller

    def send(self, flow: Flow, sent: Outgoing, remark: str = "") -> None:
        """Put what a participant sends, or seems to send, on its way."""
        is_held = (flow.sender, flow.receiver) in self.held or flow.has_leftover(sent.stream)
        self._note(flow, sent, is_genuine=not remark)
        for at, (text, more) in enumerate(sent.describe(self.names, flow)):
            marks = [
                mark for mark in (sent.label, remark, sent.remark(at), "held" if is_held else "") if mark
            ]
            tail = f"  [{', '.join(marks)}]" if marks else ""
            self.log.line(self.now, flow.who, text + tail, *more)
        if flow.is_cut:
            return
        if is_held:
            flow.keep(sent)
        else:
            self.later(self.delay_us, lambda: self.arrive(flow, sent.stream, sent.data, fin=sent.fin))

    def arrive(self, flow: Flow, stream: int, data: bytes, *, fin: bool) -> None:
        """Hand bytes to whoever receives them."""
        if flow.is_deaf or flow.is_reset(stream):
            return
        flow.arrived.add(stream)
        if fin:
            flow.finished.add(stream)
        node = self.nodes[flow.receiver]
        self.perform(node, node.endpoint.stream_data(flow.receiver_end, stream, data, fin=fin, now=self.now))

    def reset(self, flow: Flow, stream: int) -> None:
        """The sender gives a stream up: what has not arrived never will."""
        if flow.is_deaf or stream in flow.finished:
            return
        flow.drop(stream)
        node = self.nodes[flow.receiver]
        self.log.line(self.now, flow.who, f"resets {flow.stream_name(stream)}")
        self.perform(node, node.endpoint.stream_reset(flow.receiver_end, stream, now=self.now))

    def lose(self, flow: Flow, reason: str) -> None:
        """The receiver of ``flow`` notices that the connection is gone."""
        if flow.is_deaf:
            return
        flow.is_deaf = flow.other.is_cut = True
        node = self.nodes[flow.receiver]
        self.log.line(self.now, node.name, f"loses {flow.sender}{flow.label}: {reason}")
        self.perform(node, node.endpoint.connection_lost(flow.receiver_end, reason, now=self.now))

    def answer(self, node: Node, asked: Asked, started_us: Micros) -> None:
        """The executor has done what it was asked for."""
        endpoint, effect = self.stage(node.name), asked.effect
        match effect:
            case fx.Reserve():
                effects = endpoint.reserved(effect.request, now=self.now)
            case fx.Run():
                effects = endpoint.output(
                    effect.request,
                    effect.position,
                    memoryview(_add_one(effect)),
                    started_us=started_us,
                    finished_us=self.now,
                    now=self.now,
                )
        self.perform(node, effects)

    def later(self, delay_us: int, action: Callable[[], None]) -> None:
        """Let something happen after a while."""
        heapq.heappush(self._queue, (self.now + delay_us, next(self._order), action))

    def settle(self) -> None:
        """Let time pass until nothing is under way."""
        for _ in range(EVENTS_MAX):
            if not self._queue:
                return
            self._advance_to(self._queue[0][0])
        raise CommandError(f"still busy after {EVENTS_MAX} events")

    def run_until(self, end: Micros) -> None:
        """Let time pass; whatever is due happens, timers included."""
        for _ in range(EVENTS_MAX):
            if self._due() is None or self._advance_to(end):
                self.now = max(self.now, end)
                return
        raise CommandError(f"still busy after {EVENTS_MAX} events")

    def flow_of(self, sender_end: ConnectionId) -> Flow:
        """The direction that leaves from one end of a connection."""
        return next(flow for flow in self.flows if flow.sender_end == sender_end)

    def _advance_to(self, end: int) -> bool:
        """Do the next thing that is due until ``end``: a timer, or else an event; whether none is."""
        due = self._due()
        if due is None or due[0] > end:
            return True
        at, node = due
        self.now = Micros(max(self.now, at))
        if node is None:
            heapq.heappop(self._queue)[2]()
            return False
        deadline = node.endpoint.next_deadline
        assert deadline is not None
        self.log.line(self.now, node.name, f"timer {deadline[1]}")
        self.perform(node, node.endpoint.timer(now=self.now))
        return False

    def _due(self) -> tuple[int, Node | None] | None:
        """When the next thing happens, and whose timer it is; timers come before events of the instant."""
        times: list[tuple[int, Node | None]] = []
        for node in self.nodes.values():
            deadline = node.endpoint.next_deadline
            if deadline is not None:
                times.append((deadline[0], node))
        times += [(at, None) for at, _, _ in self._queue[:1]]
        return min(times, key=lambda item: item[0]) if times else None

    def _add(self, node: Node) -> None:
        self.nodes[node.name] = node
        self.names.participants[node.signer.participant] = node.name

    def _peer(self, effect: object) -> str:
        """Who is at the other end of the connection that an effect is about, if it is about one."""
        connection = getattr(effect, "connection", None) or getattr(effect, "subject", None)
        flow = next((flow for flow in self.flows if flow.sender_end == connection), None)
        return "" if flow is None else flow.receiver + flow.label

    def _note(self, flow: Flow, sent: Outgoing, *, is_genuine: bool) -> None:
        """Remember what names and forgeries need later."""
        if not is_genuine or sent.altered:
            return
        for frame in sent.frames:
            match frame:
                case OpenFrame():
                    opened = Open.decode(SignedMessage.decode("open", frame.message).body)
                    self.opens[opened.request_id] = frame.message
                case CommitFrame() if frame.handle in flow.other.handles:
                    self.commits[flow.other.handles[frame.handle], frame.stage] = frame.message
                case CancelFrame():
                    cancel = Cancel.decode(SignedMessage.decode("cancel", frame.message).body)
                    self.cancels[cancel.request_id] = frame.message
                case AttachFrame():
                    self.names.tokens[frame.return_token] = frame.request_id
                case _:
                    pass

    def _learn_tags(self, flow: Flow, effect: fx.SendStep) -> None:
        """A client's steps say what the tags of its history are, whatever becomes of them on the way."""
        if isinstance(self.nodes[flow.sender].endpoint, ClientEndpoint):
            cursor = Cursor(effect.header)
            cursor.varint()
            header = StepHeader.decode(cursor)
            request = flow.handles[header.handle]
            self.names.learn_tag(request, header.position, header.tag_before)
            self.names.learn_tag(request, header.end, header.tag_after)

    def _ask(self, node: Node, effect: fx.Reserve | fx.Run) -> None:
        asked = Asked(effect=effect, at_us=self.now)
        if node.compute_us is None:
            node.asked.append(asked)
            return
        started_us = Micros(max(self.now, node.busy_until_us))
        takes_us = node.compute_us if isinstance(effect, fx.Run) else 0
        node.busy_until_us = Micros(started_us + takes_us)
        self.later(node.busy_until_us - self.now, lambda: self.answer(node, asked, started_us))

    def _stop(self, outgoing: Flow, stream: int) -> None:
        """Whoever is asked to stop a stream resets it."""
        incoming = outgoing.other
        self.later(self.delay_us, lambda: self.reset(incoming, stream))

    def _close(self, outgoing: Flow, reason: str) -> None:
        outgoing.is_cut = outgoing.other.is_deaf = True
        self.later(self.delay_us, lambda: self.lose(outgoing, f"closed by the peer: {reason}"))


def _add_one(run: fx.Run) -> bytes:
    """An executor that adds one to every byte and returns only the rows asked for."""
    wanted = LAYOUT.payload_bytes(run.rows_out_max)
    return bytes((byte + 1) % 256 for byte in run.payload)[-wanted:]


def _signer(name: str) -> Signer:
    return make_signer(int.from_bytes(sha256(name.encode()).digest()[:4], "big"))


def _choices(name: str) -> Choices:
    """The same bytes for the same name, draw by draw."""
    draws = count()

    def choose(octets_count: int) -> bytes:
        seed = f"{name} draw {next(draws)}".encode()
        blocks = (sha256(seed + bytes([block])).digest() for block in range(octets_count // 32 + 1))
        return b"".join(blocks)[:octets_count]

    return choose
