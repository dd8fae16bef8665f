"""One real endpoint among scripted peers: what it is told comes from the wire layer alone.

A :class:`Bench` holds the endpoint, its virtual time and what it asked for. A :class:`Far` is the other
end of one connection. What an endpoint did is compared as *facts*: plain tuples that begin with a word.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from importlib import import_module
from importlib.util import find_spec

from odsi_proto.limits import Limits
from odsi_proto.statemachine.admission import StageOffer
from odsi_proto.statemachine.client import ClientEndpoint
from odsi_proto.statemachine.effects import (
    Close,
    Effect,
    Established,
    PathReady,
    Release,
    RequestFailed,
    Reserve,
    RowsArrived,
    Run,
    SendControl,
    SendStep,
    StatusArrived,
)
from odsi_proto.statemachine.endpoint import Endpoint
from odsi_proto.statemachine.session import Binding, SelfDescription
from odsi_proto.statemachine.stage import StageEndpoint
from odsi_proto.testing.strategies import signer_of
from odsi_proto.units import ConnectionId, LayerRange, Micros
from odsi_proto.wire import frames as wire
from odsi_proto.wire.codepoints import Role, StreamType
from odsi_proto.wire.frames import Frame, decode_frame, encode_frame
from odsi_proto.wire.identity import SignedMessage, Signer
from odsi_proto.wire.messages import Cancel, Hello, Offer, auth_body
from odsi_proto.wire.step import StepHeader
from odsi_proto.wire.varint import Cursor, encode_varint

Fact = tuple[object, ...]

CLIENT, STRANGER = signer_of(0), signer_of(5)
MODEL_ROOT = bytes(range(32))
WIDTH = 2
UNIX_S_AT_ZERO = 1_000_000
CERTIFICATE = bytes(32)
FRAME_BYTES_MAX = 1 << 20
INVARIANTS = "odsi_proto.statemachine.invariants"
CONTROL = 2
"""The stream on which a scripted peer's control frames come."""


class Choices:
    """A source of bytes that no two calls share, the same in every run."""

    def __init__(self) -> None:
        self.made: list[bytes] = []
        """Everything so far, for a model that must know a secret."""

    def __call__(self, size: int) -> bytes:
        made = (len(self.made) + 1).to_bytes(4, "big").rjust(size, b"\x5a")[-size:]
        self.made.append(made)
        return made


@dataclass
class Far:
    """The other end of one connection of the endpoint."""

    bench: "Bench"
    name: str
    connection: ConnectionId
    signer: Signer
    is_dialler: bool
    hello: bytes
    endpoint_hello: bytes
    next_stream: int = CONTROL
    has_spoken: bool = False

    def say(self, *frames: Frame) -> None:
        """Frames on this peer's control stream."""
        self.raw(b"".join(map(encode_frame, frames)))

    def raw(self, data: bytes) -> None:
        """Bytes on this peer's control stream."""
        prefix = b"" if self.has_spoken else encode_varint(StreamType.CONTROL)
        self.has_spoken = True
        self.stream(CONTROL, prefix + data, fin=False)

    def stream(self, stream: int, data: bytes, *, fin: bool) -> None:
        """Bytes on any stream."""
        bench = self.bench
        bench.do(bench.endpoint.stream_data(self.connection, stream, data, fin=fin, now=bench.now))

    def new_stream(self) -> int:
        """A stream that was not used yet."""
        self.next_stream += 4
        return self.next_stream

    def step(self, header: StepHeader, payload: bytes) -> None:
        """A whole step on a stream of its own."""
        self.stream(self.new_stream(), header.encode() + payload, fin=True)

    def auth(self, *, signer: Signer | None = None) -> wire.AuthFrame:
        """This peer's AUTH over both HELLOs."""
        body = auth_body(
            dialler_hello=self.hello if self.is_dialler else self.endpoint_hello,
            acceptor_hello=self.endpoint_hello if self.is_dialler else self.hello,
            acceptor_certificate_sha256=CERTIFICATE,
            is_dialler=self.is_dialler,
        )
        return wire.AuthFrame(signature=(signer or self.signer).sign("auth", body))

    def lose(self) -> None:
        """The connection is gone."""
        bench = self.bench
        bench.do(bench.endpoint.connection_lost(self.connection, "gone", now=bench.now))


@dataclass
class Bench:
    """The endpoint, its time, and what it asked for."""

    endpoint: Endpoint
    choices: Choices
    now: Micros = Micros(1_000_000)
    effects: list[tuple[Micros, Effect]] = field(default_factory=list)
    fars: dict[ConnectionId, Far] = field(default_factory=dict)
    connections_count: int = 0

    @property
    def unix_s(self) -> int:
        """The endpoint's wall clock."""
        return UNIX_S_AT_ZERO + self.now // 1_000_000

    def do(self, effects: tuple[Effect, ...]) -> None:
        """Keep what a mutator returned."""
        self.effects += [(self.now, effect) for effect in effects]

    def pass_until(self, until: int) -> None:
        """Let time go by; each timer fires when it is due."""
        for _ in range(10_000):
            deadline = self.endpoint.next_deadline
            if deadline is None or deadline[0] > until:
                self.now = Micros(max(self.now, until))
                return
            self.now = Micros(max(self.now, deadline[0]))
            self.do(self.endpoint.timer(now=self.now))
        raise AssertionError("timers fire for ever")

    def take(self) -> list[tuple[Micros, Effect]]:
        """What was asked for since the last call."""
        taken, self.effects = self.effects, []
        return taken

    def facts(self) -> list[tuple[int, Fact]]:
        """What was done since the last call, by the names of the peers."""
        return [(int(at), fact) for at, effect in self.take() for fact in self._facts(effect)]

    def connect(self, name: str, signer: Signer, *, endpoint_dials: bool = False, **said: object) -> Far:
        """A connection on which only the endpoint has spoken; ``said`` changes the peer's HELLO."""
        self.connections_count += 1
        connection = ConnectionId(self.connections_count)
        own_key = bytes(self.endpoint.about.signer.hot_key.verify_key)
        binding = Binding(
            is_dialler=endpoint_dials,
            acceptor_certificate_sha256=CERTIFICATE,
            acceptor_key=bytes(signer.hot_key.verify_key) if endpoint_dials else own_key,
            expected=signer.participant if endpoint_dials else None,
        )
        hello = replace(hello_of(signer, certificate=CERTIFICATE if endpoint_dials else b""), **said)  # type: ignore[arg-type]
        effects = self.endpoint.connection_made(connection, binding, now=self.now)
        (first,) = (effect for effect in effects if isinstance(effect, SendControl))
        (said_first,) = frames_of(first.data)
        assert isinstance(said_first, wire.HelloFrame)
        far = Far(
            bench=self,
            name=name,
            connection=connection,
            signer=signer,
            is_dialler=not endpoint_dials,
            hello=hello.encode(),
            endpoint_hello=said_first.body,
        )
        self.fars[connection] = far
        return far

    def establish(self, name: str, signer: Signer, *, endpoint_dials: bool = False, **said: object) -> Far:
        """A connection whose two ends know each other."""
        far = self.connect(name, signer, endpoint_dials=endpoint_dials, **said)
        far.say(wire.HelloFrame(body=far.hello), far.auth())
        assert any(isinstance(effect, Established) for _, effect in self.take())
        return far

    def check(self) -> None:
        """The named invariants hold."""
        check_invariants(self.endpoint)

    def _facts(self, effect: Effect) -> Iterator[Fact]:
        match effect:
            case SendControl(connection=connection, data=data):
                for frame in frames_of(data):
                    if not isinstance(frame, wire.UnknownFrame):
                        yield frame_fact(self.fars[connection].name, frame)
            case SendStep(connection=connection, header=header, payload=payload):
                cursor = Cursor(header)
                assert cursor.varint() == StreamType.STEP
                decoded = StepHeader.decode(cursor)
                assert decoded.remaining_us == effect.remaining_us
                yield ("step", self.fars[connection].name, decoded, bytes(payload))
            case Close(connection=connection, code=code):
                yield ("close", self.fars[connection].name, int(code))
            case _:
                yield from driver_facts(effect)


def driver_facts(effect: Effect) -> Iterator[Fact]:
    """What is asked of the executor and told to the caller."""
    match effect:
        case Run():
            rows = (effect.position, effect.count, bytes(effect.payload), effect.rows_out_max)
            yield ("run", effect.request, *rows, effect.is_droppable)
        case Reserve(request=request, positions_max=positions_max):
            yield ("reserve", request, positions_max)
        case Release(request=request):
            yield ("release", request)
        case Established(connection=connection, participant=participant):
            yield ("established", connection, participant)
        case PathReady(request=request):
            yield ("ready", request)
        case RowsArrived():
            yield ("rows", effect.request, effect.position, effect.end, bytes(effect.payload))
        case StatusArrived(request=request, records=records):
            yield ("status", request, tuple(record.position for record in records))
        case RequestFailed(request=request, stage=stage, code=code):
            yield ("failed", request, stage, int(code))
        case _:
            pass  # traces, transitions, streams that are stopped


def check_invariants(endpoint: Endpoint) -> None:
    """What the state machines promise of their state."""
    if find_spec(INVARIANTS) is not None:
        assert import_module(INVARIANTS).violations(endpoint) == ()


def frame_fact(name: str, frame: Frame) -> Fact:
    """A frame without what is for people."""
    match frame:
        case wire.RefuseFrame():
            place = (frame.handle, frame.stage, int(frame.code), frame.lineage, frame.position)
            return ("REFUSE", name, *place)
        case wire.AbandonFrame():
            return ("ABANDON", name, frame.handle, int(frame.code))
        case wire.GoawayFrame():
            return ("GOAWAY", name, int(frame.code))
        case wire.CancelFrame():
            cancel = Cancel.decode(SignedMessage.decode("cancel", frame.message).body)
            return ("CANCEL", name, cancel.request_id, int(cancel.code))
        case wire.CommitFrame():
            return ("COMMIT", name, frame.handle, frame.stage, frame.message)
        case wire.HelloFrame() | wire.AuthFrame():
            return (type(frame).__name__, name)
        case _:
            return (type(frame).__name__, name, frame)


def frames_of(data: bytes) -> list[Frame]:
    """The frames in a piece of a control stream, its type or not before them."""
    cursor = Cursor(data)
    if data[:1] == encode_varint(StreamType.CONTROL) and data[1:2] == b"\0":
        cursor.varint()
    found = []
    while cursor.left:
        found.append(decode_frame(cursor, payload_bytes_max=FRAME_BYTES_MAX))
    return found


def hello_of(signer: Signer, *, certificate: bytes = b"") -> Hello:
    """A HELLO that nobody has reason to refuse."""
    return Hello(
        versions=(1,),
        delegation=signer.delegation,
        nonce=bytes(32),
        certificate_sha256=certificate,
        roles=(int(Role.CLIENT), int(Role.EXECUTION_NODE)),
        codecs=(1, 2),
        profiles=(1,),
        hash_suites=(1,),
        settings=(),
        offers=(),
    )


def stage_bench(limits: Limits, *, index: int = 0, positions_max: int = 64) -> Bench:
    """An execution node that can be stage ``index`` of paths with ten layers a stage."""
    choices, layers = Choices(), LayerRange(10 * index, 10 * index + 10)
    endpoint = StageEndpoint(
        about=SelfDescription(
            signer=signer_of(index + 1),
            roles=(Role.EXECUTION_NODE,),
            offers=(Offer(layers=layers, model_root=MODEL_ROOT),),
        ),
        offer=StageOffer(layers=layers, model_root=MODEL_ROOT, width=WIDTH, positions_max=positions_max),
        limits=limits,
        choices=choices,
        unix_s_at_zero=UNIX_S_AT_ZERO,
    )
    return Bench(endpoint, choices)


def client_bench(limits: Limits) -> Bench:
    """A client."""
    choices = Choices()
    endpoint = ClientEndpoint(
        about=SelfDescription(signer=CLIENT, roles=(Role.CLIENT,)),
        limits=limits,
        choices=choices,
        unix_s_at_zero=UNIX_S_AT_ZERO,
    )
    return Bench(endpoint, choices)


def in_any_order(facts: list[tuple[int, Fact]]) -> list[str]:
    """For comparison where the order between different peers and the executor says nothing."""
    return sorted(map(repr, facts))
