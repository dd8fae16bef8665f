"""What depends on bytes alone: chunks and orders that say nothing, noise that harms nobody."""

from dataclasses import dataclass, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from properties import requests
from properties.profile import share
from properties.scripted import CLIENT, WIDTH, Bench, Fact, Far, client_bench, stage_bench

from odsi_proto.errors import LocalProtocolError
from odsi_proto.limits import Limits
from odsi_proto.statemachine.claim import RequestSpec
from odsi_proto.statemachine.client import ClientEndpoint
from odsi_proto.statemachine.effects import Reserve, Run
from odsi_proto.statemachine.session import Binding
from odsi_proto.statemachine.stage import StageEndpoint
from odsi_proto.testing import strategies as odsi
from odsi_proto.testing.strategies import (
    LIMITS_TIGHT,
    Bytes,
    Lost,
    Operation,
    Passed,
    signer_of,
    stage_plans_of,
)
from odsi_proto.testing.strategies.operations import stream_bytes
from odsi_proto.units import ConnectionId, Handle, Micros, Position, RequestId, Tag
from odsi_proto.wire import frames as wire
from odsi_proto.wire.codepoints import ErrorCode, StreamType
from odsi_proto.wire.frames import encode_frame
from odsi_proto.wire.step import StepHeader
from odsi_proto.wire.tag import root_tag, tag_after
from odsi_proto.wire.tensor import ActivationCodec, NumericProfile
from odsi_proto.wire.varint import encode_varint

REQUEST = RequestId(bytes([1]) * 16)
ROW_BYTES = 4 * WIDTH
STREAMS = (6, 10, 14)


def header_at(position: int, count: int, *, handle: int = 0) -> StepHeader:
    """A step of :data:`REQUEST` as its client means it."""
    chain = [
        tag_after(root_tag(REQUEST), b"", Position(0), [0] * end) for end in (position, position + count)
    ]
    return StepHeader(
        handle=Handle(handle),
        lineage=0,
        attempt=0,
        position=Position(position),
        count=count,
        remaining_us=Micros(200_000),
        owd_us=Micros(0),
        tag_before=chain[0],
        tag_after=chain[1],
    )


@dataclass
class Served:
    """A stage with one ready request, the client before and after it."""

    bench: Bench
    upstream: Far
    onward: Far

    @property
    def stage(self) -> StageEndpoint:
        assert isinstance(self.bench.endpoint, StageEndpoint)
        return self.bench.endpoint


def serve(limits: Limits) -> Served:
    bench = stage_bench(limits)
    upstream, onward = bench.establish("upstream", CLIENT), bench.establish("client", CLIENT)
    message = requests.signed_open(requests.open_of(REQUEST, stages_count=1, unix_s=bench.unix_s))
    upstream.say(requests.open_frame(message, handle=0, stage=0))
    onward.say(requests.attach_frame(REQUEST))
    assert isinstance(bench.endpoint, StageEndpoint)
    bench.do(bench.endpoint.reserved(REQUEST, now=bench.now))
    bench.take()
    return Served(bench, upstream, onward)


def ask(limits: Limits) -> tuple[Bench, Far, RequestId]:
    """A client with one request that is being opened, at one stage."""
    bench = client_bench(limits)
    far = bench.establish("first", signer_of(1), endpoint_dials=True)
    client = bench.endpoint
    assert isinstance(client, ClientEndpoint)
    request = client.new_request_id()
    spec = RequestSpec(
        model_root=bytes(32),
        width=WIDTH,
        stages=stage_plans_of([signer_of(1).participant]),
        codec=ActivationCodec.F32,
        profile=NumericProfile.FLOAT32,
        positions_max=16,
        rows_returned_max=1,
        first_token_us=Micros(400_000),
        per_token_us=Micros(400_000),
        valid_s=60,
    )
    bench.do(client.open(request, spec, first=far.connection, last=far.connection, now=bench.now))
    return bench, far, request


near_headers = st.builds(
    lambda position, count, changes: replace(header_at(position, count), **changes),
    st.integers(0, 8),
    st.integers(1, 5),
    st.fixed_dictionaries(
        {},
        optional={
            "handle": st.integers(0, 2),
            "lineage": st.integers(0, 1),
            "tag_after": st.just(Tag(bytes(8))),
            "tag_before": st.just(Tag(bytes(8))),
            "position": st.integers(0, 20),
        },
    ),
)
near_steps = st.builds(
    lambda header, rows: header.encode() + bytes(ROW_BYTES * rows), near_headers, st.integers(0, 5)
)
near_streams = st.one_of(near_steps, stream_bytes())


@st.composite
def near_operations(draw: st.DrawFn, connections: tuple[ConnectionId, ...]) -> list[Operation]:
    """Operations some of whose bytes nearly mean something to :func:`serve` or :func:`ask`."""
    near: st.SearchStrategy[Operation] = st.builds(
        Bytes,
        connection=st.sampled_from(connections),
        stream=st.sampled_from(STREAMS),
        data=near_streams,
        fin=st.booleans(),
    )
    found: list[Operation] = []
    for part in draw(
        st.lists(
            st.one_of(near.map(lambda one: [one]), odsi.operations(connections, length_max=3)), max_size=8
        )
    ):
        found += part
    return found


@given(st.data(), st.lists(st.tuples(st.sampled_from(STREAMS), near_streams, st.booleans()), max_size=5))
@share(60)
def test_pieces_of_a_stream_say_no_more_than_the_whole(
    data: st.DataObject, writes: list[tuple[int, bytes, bool]]
) -> None:
    whole, cut = serve(LIMITS_TIGHT), serve(LIMITS_TIGHT)
    for stream, raw, fin in writes:
        whole.upstream.stream(stream, raw, fin=fin)
        pieces = data.draw(odsi.chunkings(raw))
        for number, piece in enumerate(pieces):
            cut.upstream.stream(stream, piece, fin=fin and number == len(pieces) - 1)
        assert whole.bench.facts() == cut.bench.facts()


@given(st.data())
@share(40)
def test_a_handshake_and_an_open_may_come_in_any_pieces(data: st.DataObject) -> None:
    facts = []
    for is_cut in (False, True):
        bench = stage_bench(LIMITS_TIGHT)
        far = bench.connect("upstream", CLIENT)
        message = requests.signed_open(requests.open_of(REQUEST, stages_count=1, unix_s=bench.unix_s))
        said = (wire.HelloFrame(body=far.hello), far.auth(), requests.open_frame(message, handle=3, stage=0))
        raw = encode_varint(StreamType.CONTROL) + b"".join(map(encode_frame, said))
        for piece in data.draw(odsi.chunkings(raw)) if is_cut else [raw]:
            far.stream(2, piece, fin=False)
        facts.append(bench.facts())
    assert facts[0] == facts[1]
    assert [fact[0] for _, fact in facts[0]] == ["AuthFrame", "established", "reserve"]


@given(st.data(), st.lists(st.integers(1, 4), min_size=1, max_size=6))
@share(60)
def test_steps_run_in_order_whatever_the_order_and_the_pieces_in_which_they_come(
    data: st.DataObject, counts: list[int]
) -> None:
    served = serve(replace(Limits(), parked_steps_max=6))
    counts = counts[: _fitting(counts, 16)]
    starts = [sum(counts[:index]) for index in range(len(counts))]
    headers = [header_at(position, count) for position, count in zip(starts, counts, strict=True)]
    streams = [
        data.draw(odsi.chunkings(header.encode() + bytes([1 + index]) * ROW_BYTES * header.count))
        for index, header in enumerate(headers)
    ]
    sent = [0] * len(streams)
    for turn in data.draw(odsi.interleavings([len(stream) for stream in streams])):
        piece, is_last = streams[turn][sent[turn]], sent[turn] == len(streams[turn]) - 1
        served.upstream.stream(6 + 4 * turn, piece, fin=is_last)
        sent[turn] += 1
    expected: list[Fact] = [
        (
            "run",
            REQUEST,
            header.position,
            header.count,
            bytes([1 + index]) * ROW_BYTES * header.count,
            1,
            False,
        )
        for index, header in enumerate(headers)
    ]
    assert [fact for _, fact in served.bench.facts()] == expected


def _fitting(counts: list[int], positions_max: int) -> int:
    """How many of the steps the request has room for."""
    return max(number for number in range(len(counts) + 1) if sum(counts[:number]) <= positions_max)


@given(st.data(), odsi.limits())
@share(70)
def test_no_bytes_make_a_stage_raise_and_nothing_is_left_behind(data: st.DataObject, limits: Limits) -> None:
    served = serve(limits)
    connections = (served.upstream.connection, served.onward.connection)
    hammer(data, served.bench, connections)
    for connection in connections:
        served.bench.do(served.stage.connection_lost(connection, "over", now=served.bench.now))
    assert served.stage.requests_open == 0
    assert served.stage.next_deadline is None
    after = served.bench.connect("again", CLIENT)
    after.say(wire.HelloFrame(body=after.hello), after.auth())
    assert ("established", after.connection, CLIENT.participant) in [fact for _, fact in served.bench.facts()]


@given(st.data(), odsi.limits())
@share(60)
def test_no_bytes_make_a_client_raise_and_its_request_ends(data: st.DataObject, limits: Limits) -> None:
    bench, far, request = ask(limits)
    hammer(data, bench, (far.connection,))
    bench.do(bench.endpoint.connection_lost(far.connection, "over", now=bench.now))
    ends = [fact for _, fact in bench.facts() if fact[0] == "failed"]
    assert [fact[1] for fact in ends] == [request]
    assert bench.endpoint.next_deadline is None


def hammer(data: st.DataObject, bench: Bench, connections: tuple[ConnectionId, ...]) -> None:
    """Everything that may happen from outside; the executor answers at once."""
    kept: list[Any] = []
    for operation in data.draw(near_operations(connections)):
        effects, bench.now = odsi.perform(bench.endpoint, operation, now=bench.now)
        kept += effects
        while effects:
            answers = [answer(bench.endpoint, effect, bench.now) for effect in effects]
            effects = tuple(effect for some in answers for effect in some)
            kept += effects
    bench.effects += [(bench.now, effect) for effect in kept]


def answer(endpoint: Any, effect: Any, now: Micros) -> Any:
    match effect:
        case Reserve():
            return endpoint.reserved(effect.request, now=now)
        case Run():
            rows = memoryview(bytes(ROW_BYTES * effect.rows_out_max))
            return endpoint.output(
                effect.request, effect.position, rows, started_us=now, finished_us=now, now=now
            )
        case _:
            return ()


@given(st.lists(st.tuples(near_streams, st.booleans(), st.integers(1, 40)), max_size=4))
@share(60)
def test_after_its_end_a_connection_is_silent(writes: list[tuple[bytes, bool, int]]) -> None:
    """SESS-008: what was in flight causes nothing, whichever way the connection ended."""
    for closes in (True, False):
        served = serve(LIMITS_TIGHT)
        if closes:
            served.upstream.raw(b"\x02\x01x")
            assert ("close", "upstream", 2) in [fact for _, fact in served.bench.facts()]
        else:
            operation = Lost(connection=served.upstream.connection)
            odsi.perform(served.stage, operation, now=served.bench.now)
        for raw, fin, stream in writes:
            served.upstream.stream(stream, raw, fin=fin)
            served.stage.stream_reset(served.upstream.connection, stream, now=served.bench.now)
        assert served.bench.facts() == []


def test_a_callers_fault_raises_and_changes_nothing() -> None:
    served = serve(LIMITS_TIGHT)
    stage, bench = served.stage, served.bench
    served.upstream.step(header_at(0, 1), bytes(ROW_BYTES))
    bench.take()
    before = getattr(stage, "state", None), stage.next_deadline
    rows, now = memoryview(bytes(ROW_BYTES)), bench.now
    binding = Binding(is_dialler=False, acceptor_certificate_sha256=bytes(32), acceptor_key=bytes(32))
    with pytest.raises(LocalProtocolError):
        stage.output(REQUEST, Position(1), rows, started_us=now, finished_us=now, now=now)
    with pytest.raises(LocalProtocolError):
        stage.failed(REQUEST, Position(1), "why", now=now)
    with pytest.raises(LocalProtocolError):
        stage.connection_made(served.upstream.connection, binding, now=now)
    assert (getattr(stage, "state", None), stage.next_deadline) == before
    bench.do(stage.output(REQUEST, Position(0), rows, started_us=now, finished_us=now, now=now))
    assert [fact[0] for _, fact in bench.facts()] == ["step"]


def test_time_that_passes_fires_what_is_due_when_it_is_due() -> None:
    served = serve(LIMITS_TIGHT)
    served.upstream.step(header_at(1, 1), bytes(ROW_BYTES))
    before = served.bench.now
    effects, now = odsi.perform(served.stage, Passed(us=LIMITS_TIGHT.parked_us_max), now=before)
    assert now == before + LIMITS_TIGHT.parked_us_max
    assert effects
    assert served.stage.next_deadline is None


@pytest.mark.spec("REQ-016", "REQ-048")
def test_a_stage_may_abandon_what_its_client_had_given_up_before_attached_came() -> None:
    """The client used to forget a request while ATTACHED was on its way, and then to blame the stage."""
    bench, far, request = ask(Limits())
    bench.do(bench.endpoint.cancel(request, ErrorCode.CANCELLED, now=bench.now))  # type: ignore[attr-defined]
    bench.take()
    far.say(wire.AttachedFrame(request_id=request, handle=Handle(0)))
    far.say(wire.AbandonFrame(handle=Handle(0), code=int(ErrorCode.EXPIRED), reason=""))
    assert bench.facts() == []
