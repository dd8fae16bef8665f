"""One endpoint, one peer that says anything in any order, and the table of specs/01 section 6."""

from dataclasses import replace

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from nacl.signing import SigningKey
from properties.profile import share
from properties.requests import attach_frame, cancel_frame
from properties.scripted import (
    CONTROL,
    UNIX_S_AT_ZERO,
    Fact,
    Far,
    client_bench,
    stage_bench,
)

from odsi_proto.limits import Limits
from odsi_proto.testing import strategies as odsi
from odsi_proto.testing.strategies import signer_of
from odsi_proto.units import Handle, Micros, RequestId
from odsi_proto.wire import frames as wire
from odsi_proto.wire.codepoints import ErrorCode as Code
from odsi_proto.wire.codepoints import Setting, StreamType
from odsi_proto.wire.identity import Delegation, Signer
from odsi_proto.wire.messages import Extension, Hello
from odsi_proto.wire.varint import encode_varint

LIMITS = Limits(handshake_us_max=Micros(400_000), streams_per_connection_max=5, clock_skew_s=10)
OTHER = signer_of(4)
EVEN_UNKNOWN, ODD_UNKNOWN = 0x40, 0x41
OPEN_STATES = {"established", "draining"}


def signer_valid(first_s: int, end_s: int, *, scope: str = "all", hot: bytes = b"h" * 32) -> Signer:
    """A participant whose delegation holds in these seconds after the endpoint's zero."""
    cold, hot_key = SigningKey(b"c" * 32), SigningKey(hot)
    delegation = Delegation.issue(
        cold,
        hot_key=bytes(hot_key.verify_key),
        epoch=1,
        not_before_s=UNIX_S_AT_ZERO + first_s,
        not_after_s=UNIX_S_AT_ZERO + end_s,
        scope=scope,
    )
    return Signer(hot_key=hot_key, delegation=delegation)


# The first second of every run is 1; the clocks may differ by 10 s.
VALIDITIES = {
    "current": signer_valid(0, 100),
    "just begun": signer_valid(11, 100),
    "not begun": signer_valid(12, 100),
    "not quite over": signer_valid(-50, -8),
    "over": signer_valid(-50, -9),
    "of another scope": signer_valid(0, 100, scope="some"),
}
NOT_CURRENT = {"not begun", "over", "of another scope"}

HELLOS: dict[str, tuple[dict[str, object], Code | None]] = {
    "plain": ({}, None),
    "more versions": ({"versions": (7, 1)}, None),
    "another version": ({"versions": (2,)}, Code.VERSION_MISMATCH),
    "no version": ({"versions": ()}, Code.VERSION_MISMATCH),
    "odd extension": ({"extensions": (Extension(type=ODD_UNKNOWN, value=b"x"),)}, None),
    "even extension": ({"extensions": (Extension(type=EVEN_UNKNOWN, value=b""),)}, Code.UNSUPPORTED),
    "odd setting": ({"settings": ((ODD_UNKNOWN, 1),)}, None),
    "even setting": ({"settings": ((EVEN_UNKNOWN, 1),)}, Code.UNSUPPORTED),
    "known setting": ({"settings": ((int(Setting.REQUESTS_MAX), 1),)}, None),
    "unknown numbers": ({"roles": (99,), "codecs": (98,), "profiles": (97,), "hash_suites": (96,)}, None),
}


class SessionMachine(RuleBasedStateMachine):
    """From the first byte to the end of a connection, again and again at one endpoint."""

    @initialize(is_client=st.booleans())
    def set_up(self, is_client: bool) -> None:
        self.bench = client_bench(LIMITS) if is_client else stage_bench(LIMITS)
        self.is_client = is_client
        self.state = "closed"
        self.far: Far | None = None
        self.connected_us = 0
        self.has_drained = False
        self.streams_open = 0

    def expect(self, *facts: Fact) -> None:
        assert [fact for _, fact in self.bench.facts()] == list(facts)

    def expect_end(self, code: Code) -> None:
        """Closed with ``code``, or nothing where the connection has ended."""
        self.expect(*([] if self.state == "closed" else [("close", "peer", int(code))]))
        self.state = "closed"

    @property
    def peer(self) -> Far:
        assert self.far is not None
        return self.far

    @precondition(lambda self: self.state == "closed")
    @rule(
        endpoint_dials=st.booleans(),
        said=st.sampled_from(sorted(HELLOS)),
        validity=st.sampled_from(sorted(VALIDITIES)),
        is_plain=st.integers(0, 3),
    )
    def a_connection_is_made(self, endpoint_dials: bool, said: str, validity: str, is_plain: int) -> None:
        # Most HELLOs are right, or no run would come far.
        said, validity = (said if is_plain == 0 else "plain"), (validity if is_plain == 1 else "current")
        changes, self.hello_code = HELLOS[said]
        signer = VALIDITIES[validity]
        self.bench.now = Micros(1_500_000) if self.far is None else self.bench.now
        if validity in NOT_CURRENT and self.hello_code is None:
            self.hello_code = Code.EXPIRED
        self.far = self.bench.connect("peer", signer, endpoint_dials=endpoint_dials, **changes)
        self.bench.take()
        self.state, self.connected_us, self.streams_open = "await hello", int(self.bench.now), 0

    @precondition(lambda self: self.far is not None)
    @rule()
    def hello(self) -> None:
        self.peer.say(wire.HelloFrame(body=self.peer.hello))
        if self.state != "await hello":
            self.expect_end(Code.ORDER_VIOLATION)
        elif self.hello_code is not None:
            self.expect_end(self.hello_code)
        else:
            self.expect(("AuthFrame", "peer"))
            self.state = "await auth"

    @precondition(lambda self: self.state == "await auth")
    @rule()
    def auth(self) -> None:
        self.peer.say(self.peer.auth())
        self.expect(("established", self.peer.connection, self.peer.signer.participant))
        self.state = "established"

    @precondition(lambda self: self.far is not None)
    @rule(kind=st.sampled_from(["another key", "other side", "right"]))
    def auth_that_is_wrong_or_untimely(self, kind: str) -> None:
        if kind == "right" and self.state == "await auth":
            return
        frame = self.peer.auth(signer=OTHER if kind == "another key" else None)
        if kind == "other side":
            self.peer.is_dialler = not self.peer.is_dialler
            frame = self.peer.auth()
            self.peer.is_dialler = not self.peer.is_dialler
        self.peer.say(frame)
        is_awaited = self.state == "await auth"
        self.expect_end(Code.IDENTITY_MISMATCH if is_awaited else Code.ORDER_VIOLATION)

    @precondition(lambda self: self.state == "await hello")
    @rule(kind=st.sampled_from(["garbage", "above the bound"]))
    def hello_that_is_malformed(self, kind: str) -> None:
        surplus = kind == "above the bound"
        body = bytes(LIMITS.hello_bytes_max + 1) if surplus else b"\x80"
        self.peer.raw(encode_varint(0) + encode_varint(len(body)) + (b"" if surplus else body))
        self.expect_end(Code.MALFORMED)

    @precondition(lambda self: self.far is not None)
    @rule(frame=odsi.unknown_frames(ignorable=True))
    def an_unknown_odd_frame(self, frame: wire.UnknownFrame) -> None:
        self.peer.say(frame)
        if self.state == "await hello":
            self.expect_end(Code.ORDER_VIOLATION)
        else:
            self.expect()

    @precondition(lambda self: self.far is not None)
    @rule(frame=odsi.unknown_frames(ignorable=False))
    def an_unknown_even_frame(self, frame: wire.UnknownFrame) -> None:
        self.peer.say(frame)
        self.expect_end(Code.UNSUPPORTED)

    @precondition(lambda self: self.far is not None)
    @rule()
    def traffic_that_changes_nothing(self) -> None:
        """STATUS for a handle that names no request is ignored (REQ-032), once AUTH is verified."""
        self.peer.say(wire.StatusFrame(handle=Handle(9), records=()))
        if self.state in OPEN_STATES:
            self.expect()
        else:
            self.expect_end(Code.ORDER_VIOLATION)

    @precondition(lambda self: self.far is not None)
    @rule(which=st.integers(0, 1))
    def a_frame_for_another_role(self, which: int) -> None:
        """REQ-012, and any frame of a request before AUTH."""
        request = RequestId(bytes(16))
        for_stage = [attach_frame(request), cancel_frame(request)]
        for_client = [wire.AttachedFrame(request_id=request, handle=Handle(0))]
        frames = for_stage if self.is_client else for_client
        self.peer.say(frames[which % len(frames)])
        self.expect_end(Code.ORDER_VIOLATION)

    @precondition(lambda self: self.far is not None)
    @rule(header=odsi.step_headers())
    def a_step_of_no_request(self, header: object) -> None:
        """SESS-005 before AUTH, REQ-016 after it."""
        assert hasattr(header, "encode")
        self.peer.stream(self.peer.new_stream(), header.encode(), fin=False)
        self.expect_end(Code.ORDER_VIOLATION)

    @precondition(lambda self: self.far is not None)
    @rule()
    def goaway(self) -> None:
        self.peer.say(wire.GoawayFrame(code=Code.GOING_AWAY, reason="bye"))
        if self.state in OPEN_STATES:
            self.expect()
            self.state = "draining"
        else:
            self.expect_end(Code.ORDER_VIOLATION)

    @precondition(lambda self: self.state != "closed")
    @rule(fin=st.booleans())
    def a_malformed_frame(self, fin: bool) -> None:
        short = encode_varint(wire.FrameType.AUTH) + encode_varint(1) + b"x"
        self.peer.raw(short)
        self.expect_end(Code.MALFORMED)

    @precondition(lambda self: self.far is not None and self.peer.has_spoken)
    @rule(how=st.sampled_from(["second", "finished", "reset"]))
    def the_control_stream_is_misused(self, how: str) -> None:
        """WIRE-010."""
        bench = self.bench
        match how:
            case "second":
                self.peer.stream(self.peer.new_stream(), encode_varint(StreamType.CONTROL), fin=False)
            case "finished":
                self.peer.stream(CONTROL, b"", fin=True)
            case _:
                bench.do(bench.endpoint.stream_reset(self.peer.connection, CONTROL, now=bench.now))
        self.expect_end(Code.ORDER_VIOLATION)

    @precondition(lambda self: self.state != "closed")
    @rule(even=st.booleans())
    def a_stream_of_an_unknown_type(self, even: bool) -> None:
        """WIRE-012; an odd one counts as open until it is finished or reset."""
        if not even and self.streams_open + self.peer.has_spoken >= LIMITS.streams_per_connection_max:
            return
        kind = EVEN_UNKNOWN if even else ODD_UNKNOWN
        full = self.streams_open + self.peer.has_spoken >= LIMITS.streams_per_connection_max
        self.peer.stream(self.peer.new_stream(), encode_varint(kind), fin=False)
        if even:
            self.expect_end(Code.LIMIT_EXCEEDED if full else Code.UNSUPPORTED)
        else:
            self.streams_open += 1
            self.expect()

    @precondition(lambda self: self.state != "closed")
    @rule(fin=st.booleans())
    def a_stream_that_has_not_said_its_type(self, fin: bool) -> None:
        """WIRE-011: the largest number that is taken, and one above; WIRE-005."""
        full = self.streams_open + self.peer.has_spoken >= LIMITS.streams_per_connection_max
        self.peer.stream(self.peer.new_stream(), b"\x40", fin=fin)
        if full:
            self.expect_end(Code.LIMIT_EXCEEDED)
        else:
            self.streams_open += not fin
            self.expect()

    @precondition(lambda self: not self.has_drained)
    @rule(dice=st.integers(0, 3))
    def the_node_leaves(self, dice: int) -> None:
        if dice:
            return
        self.has_drained = True
        self.bench.do(self.bench.endpoint.drain("leaving", now=self.bench.now))
        if self.state in OPEN_STATES:
            self.expect(("GOAWAY", "peer", int(Code.GOING_AWAY)))
            self.state = "draining"
        else:
            self.expect_end(Code.GOING_AWAY)

    @rule(us=st.sampled_from([1, 100_000, 399_999, 400_000]))
    def time_passes(self, us: int) -> None:
        until, overdue = self.bench.now + us, self.connected_us + LIMITS.handshake_us_max
        self.bench.pass_until(until)
        if self.state in {"await hello", "await auth"} and overdue <= until:
            assert self.bench.facts() == [(overdue, ("close", "peer", int(Code.HANDSHAKE_TIMEOUT)))]
            self.state = "closed"
        else:
            self.expect()

    @precondition(lambda self: self.far is not None)
    @rule(dice=st.integers(0, 2))
    def the_connection_is_lost(self, dice: int) -> None:
        if not dice:
            self.peer.lose()
            self.expect()
            self.state = "closed"

    @invariant()
    def the_named_invariants_hold(self) -> None:
        if hasattr(self, "bench"):
            self.bench.check()


TestSessions = SessionMachine.TestCase
TestSessions.settings = share(120, steps=25)


@pytest.mark.spec("SESS-013")
@pytest.mark.parametrize("wrong", ["participant", "hot key", "certificate"])
def test_a_dialler_closes_on_whoever_it_did_not_mean(wrong: str) -> None:
    bench = client_bench(LIMITS)
    far = bench.connect("peer", VALIDITIES["current"], endpoint_dials=True)
    changes: dict[str, dict[str, object]] = {
        "participant": {"delegation": OTHER.delegation},
        "hot key": {"delegation": signer_valid(0, 100, hot=b"H" * 32).delegation},
        "certificate": {"certificate_sha256": bytes([1]) * 32},
    }
    hello = replace(Hello.decode(far.hello), **changes[wrong])  # type: ignore[arg-type]
    bench.take()
    far.say(wire.HelloFrame(body=hello.encode()))
    assert [fact for _, fact in bench.facts()] == [("close", "peer", int(Code.IDENTITY_MISMATCH))]
