"""One stage, its neighbours and several requests, against specs/03 sections 2 to 4 and 8.

The stage is the only one of a path (the client opens and attaches on two connections) or the first of
two (its successor commits). Steps are another machine's business: here they only come too early.
"""

from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, precondition, rule
from properties import requests
from properties.profile import share
from properties.request_cases import ALLOWED, CHECKS, CONTEXT, FAULTS, LIMITS, Asked, comparable, early_step
from properties.scripted import CLIENT, STRANGER, Fact, Far, in_any_order, stage_bench

from odsi_proto.statemachine.stage import StageEndpoint
from odsi_proto.testing.strategies import signer_of, stage_plans_of
from odsi_proto.units import Handle, Position, RequestId, StageIndex
from odsi_proto.wire import frames as wire
from odsi_proto.wire.codepoints import ErrorCode as Code
from odsi_proto.wire.identity import SignedMessage
from odsi_proto.wire.messages import Open


class RequestMachine(RuleBasedStateMachine):
    """OPEN to the end of each request, with every neighbour lying or leaving at any time."""

    known = Bundle("known")
    """Ids that an OPEN named, open or not."""

    @initialize(is_last=st.booleans())
    def set_up(self, is_last: bool) -> None:
        self.bench = stage_bench(LIMITS, positions_max=CONTEXT)
        self.is_last = is_last
        self.stages = 1 if is_last else 2
        self.asked: dict[RequestId, Asked] = {}
        self.owed: dict[RequestId, int] = {}
        """Reservations that the executor has not answered though their request has ended."""
        self.attached: dict[RequestId, tuple[bytes, int]] = {}
        """Claims that wait for their request: the token, and when they are dropped."""
        self.ids_count = 0
        self.is_leaving = False
        self.upstream: Far | None = None
        self.onward: Far | None = None
        self.goaway_came = False
        self.dial()

    @property
    def stage(self) -> StageEndpoint:
        assert isinstance(self.bench.endpoint, StageEndpoint)
        return self.bench.endpoint

    @property
    def way_on(self) -> str:
        return "client" if self.is_last else "successor"

    def dial(self) -> None:
        if self.upstream is None:
            self.upstream, self.handles, self.goaway_came = (
                self.bench.establish("upstream", CLIENT),
                -1,
                False,
            )
        if self.onward is None:
            signer = CLIENT if self.is_last else signer_of(2)
            self.onward = self.bench.establish(self.way_on, signer, endpoint_dials=not self.is_last)
            self.onward_handles = 0

    def expect(self, *facts: Fact, timed: list[tuple[int, Fact]] | None = None) -> None:
        expected = (timed or []) + [(int(self.bench.now), fact) for fact in facts]
        found = [(at, comparable(fact)) for at, fact in self.bench.facts()]
        # State that is still being set aside may be given back now or when it is there.
        early = [("release", request) for request in self.owed]
        found = [entry for entry in found if entry[1] not in early]
        assert in_any_order(found) == in_any_order(expected)

    def refusal(self, handle: int, code: Code, lineage: int = 0, *, stage: int = 0) -> Fact:
        return ("REFUSE", "upstream", handle, stage, int(code), lineage, 0)

    def end(
        self, asked: Asked, code: Code, *, refused: bool, stage: int = 0, tell: bool = True
    ) -> list[Fact]:
        """REQ-060, REQ-008: what both sides hear, and that the state is given back."""
        request = asked.opened.request_id
        if asked.state == "reserving":
            self.owed[request] = 1
        facts: list[Fact] = [] if asked.state == "reserving" else [("release", request)]
        if refused and self.upstream is not None:
            facts.append(self.refusal(asked.handle, code, asked.opened.lineage, stage=stage))
        if tell and asked.onward_handle is not None and self.onward is not None:
            facts.append(("ABANDON", self.way_on, asked.onward_handle, int(code)))
        del self.asked[request]
        return facts

    def close_upstream(self, code: Code) -> None:
        """The predecessor broke a rule: its requests end with its connection."""
        self.upstream = None
        ended = [
            fact
            for asked in tuple(self.asked.values())
            for fact in self.end(asked, Code.PEER_LOST, refused=False)
        ]
        self.expect(("close", "upstream", int(code)), *ended)

    def lose_onward(self) -> list[Fact]:
        """REQ-009; what this side had attached or opened there is gone."""
        self.onward = None
        self.attached.clear()
        gone = [asked for asked in self.asked.values() if asked.onward_handle is not None]
        place = 0 if self.is_last else 1
        return [f for asked in gone for f in self.end(asked, Code.PEER_LOST, refused=True, stage=place)]

    def changed(self, changes: dict[str, Any]) -> dict[str, Any]:
        values = dict(changes)
        if "expiry_s" in values:
            values["expiry_s"] = self.bench.unix_s + values["expiry_s"]
        else:
            values["expiry_s"] = self.bench.unix_s + 600
        if values.get("codecs") == "unknown":
            values["codecs"] = (1,) * self.stages + (99,)
        participants = [signer_of(1 + index).participant for index in range(self.stages)]
        if values.get("stages") == "other layers":
            values["stages"] = stage_plans_of(participants, layers_each=9)
        elif values.get("stages") == "other participant":
            values["stages"] = stage_plans_of([STRANGER.participant, *participants[1:]])
        return values

    def say_open(self, request: RequestId, changes: dict[str, Any], signer: Any = CLIENT) -> SignedMessage:
        assert self.upstream is not None
        self.handles += 1
        opened = requests.open_of(request, stages_count=self.stages, unix_s=0, **self.changed(changes))
        message = requests.signed_open(opened, signer)
        self.upstream.say(requests.open_frame(message, handle=self.handles, stage=0))
        return message

    def early_refusal(self, request: RequestId) -> Code | None:
        """The checks of the table in specs/03 section 2 that look at this node's state."""
        if self.is_leaving or self.goaway_came:
            return Code.GOING_AWAY
        if request in self.asked or request in self.owed:
            return Code.NOT_AUTHORISED
        return Code.OVERLOADED if len(self.asked) + len(self.owed) >= LIMITS.requests_max else None

    @precondition(lambda self: self.upstream is not None)
    @rule(target=known, how=st.sampled_from(sorted(ALLOWED)))
    def an_open_of_a_new_id(self, how: str) -> RequestId:
        return self.an_open(how)

    def an_open(self, how: str) -> RequestId:
        request = self.fresh_id()
        self.take_open(request, ALLOWED[how])
        return request

    def fresh_id(self) -> RequestId:
        self.ids_count += 1
        return RequestId(bytes([self.ids_count]) * 16)

    @precondition(lambda self: self.upstream is not None and not self.early_refusal(RequestId(b"")))
    @rule(target=known)
    def an_open_that_is_answered_at_once(self) -> RequestId:
        request = self.an_open("plain")
        self.answer_reserve(self.asked[request])
        return request

    @precondition(lambda self: self.upstream is not None)
    @rule(request=known)
    def an_open_of_a_known_id(self, request: RequestId) -> None:
        self.take_open(request, {})

    def take_open(self, request: RequestId, changes: dict[str, Any]) -> None:
        code = self.early_refusal(request)
        message = self.say_open(request, {"lineage": self.ids_count % 2, **changes})
        opened = Open.decode(message.body)
        if code is not None:
            self.expect(self.refusal(self.handles, code, opened.lineage))
            return
        self.asked[request] = Asked(message, opened, self.handles, self.bench.now)
        self.expect(("reserve", request, opened.positions_max))

    @precondition(lambda self: self.upstream is not None)
    @rule(fault=st.sampled_from(sorted(FAULTS)), second=st.none() | st.sampled_from(sorted(FAULTS)))
    def an_open_that_is_refused(self, fault: str, second: str | None) -> None:
        """REQ-039: with the code of the first check that fails."""
        request = self.fresh_id()
        changes, code = FAULTS[fault]
        if second is not None and CHECKS.index(second) > CHECKS.index(fault):
            changes = {**FAULTS[second][0], **changes}
        code = self.early_refusal(request) or code
        self.say_open(request, changes)
        self.expect(self.refusal(self.handles, code))

    @precondition(lambda self: self.upstream is not None)
    @rule()
    def an_open_by_somebody_else(self) -> None:
        request = self.fresh_id()
        code = self.early_refusal(request) or Code.NOT_AUTHORISED
        self.say_open(request, {}, STRANGER)
        self.expect(self.refusal(self.handles, code))

    @precondition(lambda self: self.upstream is not None and self.handles >= 0)
    @rule(back=st.integers(0, 2), dice=st.integers(0, 2))
    def an_open_whose_handle_is_not_above_all_before(self, back: int, dice: int) -> None:
        """REQ-013."""
        if dice:
            return
        assert self.upstream is not None
        request = self.fresh_id()
        message = requests.signed_open(
            requests.open_of(request, stages_count=self.stages, unix_s=self.bench.unix_s)
        )
        handle = max(0, self.handles - back)
        self.upstream.say(requests.open_frame(message, handle=handle, stage=0))
        self.close_upstream(Code.ORDER_VIOLATION)

    @precondition(lambda self: any(asked.state == "reserving" for asked in self.asked.values()))
    @rule(which=st.integers(0, 3), fits=st.sampled_from([True, True, True, False]))
    def the_executor_answers(self, which: int, fits: bool) -> None:
        waiting = [asked for asked in self.asked.values() if asked.state == "reserving"]
        asked = waiting[which % len(waiting)]
        request, now = asked.opened.request_id, self.bench.now
        if not fits:
            self.bench.do(self.stage.reserve_failed(request, "full", now=now))
            del self.asked[request]
            self.expect(self.refusal(asked.handle, Code.OVERLOADED, asked.opened.lineage))
        else:
            self.answer_reserve(asked)

    def answer_reserve(self, asked: Asked) -> None:
        """REQ-001, REQ-041, REQ-037, REQ-038."""
        request, now = asked.opened.request_id, self.bench.now
        self.bench.do(self.stage.reserved(request, now=now))
        asked.state = "committed"
        facts: list[Fact] = [("COMMIT", "upstream", asked.handle, 0)]
        if self.is_last:
            token = self.attached.get(request)
            if token is not None and token[0] == requests.token_of(request):
                facts += self.attach(asked)
        elif self.onward is None:
            facts += self.end(asked, Code.NO_ROUTE, refused=True)
        else:
            asked.onward_handle = self.onward_handles
            self.onward_handles += 1
            message = asked.message.encode()
            opening = wire.OpenFrame(handle=Handle(asked.onward_handle), stage=StageIndex(1), message=message)
            facts.append(("OpenFrame", "successor", opening))
        self.expect(*facts)

    def attach(self, asked: Asked) -> list[Fact]:
        """REQ-045, REQ-003."""
        request = asked.opened.request_id
        self.attached.pop(request, None)
        asked.onward_handle, asked.state, asked.ready_us = self.onward_handles, "ready", self.bench.now
        self.onward_handles += 1
        frame = wire.AttachedFrame(request_id=request, handle=Handle(asked.onward_handle))
        return [("AttachedFrame", "client", frame)]

    @precondition(lambda self: bool(self.owed))
    @rule(fits=st.booleans())
    def the_executor_answers_for_an_ended_request(self, fits: bool) -> None:
        request = next(iter(self.owed))
        del self.owed[request]
        if fits:
            self.bench.do(self.stage.reserved(request, now=self.bench.now))
            self.expect(("release", request))
        else:
            self.bench.do(self.stage.reserve_failed(request, "full", now=self.bench.now))
            self.expect()

    @precondition(lambda self: self.is_last and self.onward is not None)
    @rule(request=known, is_right=st.sampled_from([True, True, False]))
    def the_client_attaches(self, request: RequestId, is_right: bool) -> None:
        self.take_attach(request, is_right)

    @precondition(lambda self: self.is_last and self.onward is not None and bool(self.waiting))
    @rule(which=st.integers(0, 3), is_right=st.sampled_from([True, True, False]))
    def the_client_of_an_open_request_attaches(self, which: int, is_right: bool) -> None:
        self.take_attach(self.waiting[which % len(self.waiting)].opened.request_id, is_right)

    @precondition(
        lambda self: (
            self.is_last
            and self.upstream is not None
            and self.onward is not None
            and len(self.asked) + len(self.owed) < LIMITS.requests_max
        )
    )
    @rule(others=st.integers(0, 3))
    def the_client_attaches_ahead(self, others: int) -> None:
        """REQ-046: claims that come early are held, up to a bound."""
        for _ in range(others):
            self.take_attach(self.fresh_id(), True)
        request = RequestId(bytes([self.ids_count + 1]) * 16)
        self.take_attach(request, True)
        self.an_open("plain")
        if request in self.asked:
            self.answer_reserve(self.asked[request])

    def take_attach(self, request: RequestId, is_right: bool) -> None:
        """REQ-045 to REQ-049."""
        assert self.onward is not None
        token = requests.token_of(request) if is_right else bytes([0xEE]) * 16
        self.onward.say(requests.attach_frame(request, token=token))
        if len(self.attached) < LIMITS.requests_max or request in self.attached:
            self.attached[request] = token, self.bench.now + LIMITS.open_us_max
        asked = self.asked.get(request)
        is_waiting = asked is not None and asked.state == "committed" and request in self.attached
        if asked is not None and is_waiting and is_right:
            self.expect(*self.attach(asked))
        else:
            self.expect()

    @precondition(lambda self: not self.is_last and self.onward is not None)
    @rule(
        which=st.integers(0, 3), kind=st.sampled_from(["right"] * 5 + ["signer", "promise", "stage", "other"])
    )
    def the_successor_commits(self, which: int, kind: str) -> None:
        """REQ-014, REQ-043, REQ-032."""
        assert self.onward is not None
        waiting = [asked for asked in self.asked.values() if asked.onward_handle is not None]
        if not waiting:
            self.onward.say(wire.CommitFrame(handle=Handle(99), stage=StageIndex(1), message=b""))
            self.expect()
            return
        asked = waiting[which % len(waiting)]
        handle = asked.onward_handle
        assert handle is not None
        forged: dict[str, dict[str, Any]] = {
            "right": {},
            "signer": {"by": STRANGER},
            "promise": {"position_end": Position(asked.opened.positions_max - 1)},
            "other": {"open_digest": bytes(32)},
            "stage": {"frame_stage": 0},
        }
        frame = requests.commit_frame(asked.message, 1, handle=handle, **forged[kind])
        self.onward.say(frame)
        if kind == "right":
            if asked.state == "committed":
                asked.state, asked.ready_us = "ready", self.bench.now
            self.expect(("COMMIT", "upstream", asked.handle, 1))
            return
        code = Code.ORDER_VIOLATION if kind == "stage" else Code.MALFORMED
        self.expect(("close", "successor", int(code)), *self.lose_onward())

    @precondition(lambda self: self.upstream is not None and bool(self.waiting))
    @rule(which=st.integers(0, 3))
    def a_step_comes_too_early(self, which: int) -> None:
        """REQ-005."""
        assert self.upstream is not None
        asked = self.waiting[which % len(self.waiting)]
        self.upstream.step(early_step(asked.handle), bytes(8))
        self.expect(*self.end(asked, Code.ORDER_VIOLATION, refused=True))

    @property
    def waiting(self) -> list[Asked]:
        return [asked for asked in self.asked.values() if asked.state != "ready"]

    @precondition(lambda self: self.upstream is not None)
    @rule(request=known, by_client=st.sampled_from([True, True, False]), from_onward=st.booleans())
    def a_cancel(self, request: RequestId, by_client: bool, from_onward: bool) -> None:
        """REQ-006, REQ-015, REQ-061: on whichever connection it comes."""
        far = self.onward if from_onward and self.onward is not None else self.upstream
        assert far is not None
        frame = requests.cancel_frame(request, by=CLIENT if by_client else STRANGER)
        far.say(frame)
        asked = self.asked.get(request)
        if asked is None or not by_client:
            self.expect()
            return
        passed = asked.onward_handle is not None and not self.is_last and self.onward is not None
        facts = self.end(asked, Code.CANCELLED, refused=False, tell=False)
        self.expect(*facts, *([("CANCEL", "successor", request, int(Code.CANCELLED))] if passed else []))

    @precondition(lambda self: self.upstream is not None and self.handles >= 0)
    @rule(which=st.integers(0, 9))
    def the_predecessor_abandons(self, which: int) -> None:
        """REQ-008, REQ-016."""
        assert self.upstream is not None
        handle = which % (self.handles + 1)
        self.upstream.say(wire.AbandonFrame(handle=Handle(handle), code=int(Code.PEER_LOST), reason=""))
        named = [asked for asked in self.asked.values() if asked.handle == handle]
        self.expect(*(f for asked in named for f in self.end(asked, Code.PEER_LOST, refused=False)))

    @precondition(lambda self: not self.is_last and self.onward is not None and self.onward_handles > 0)
    @rule(
        which=st.integers(0, 9), code=st.sampled_from([Code.OVERLOADED, Code.STALE]), stage=st.integers(0, 2)
    )
    def the_successor_refuses(self, which: int, code: Code, stage: int) -> None:
        """REQ-007, REQ-065, REQ-032."""
        assert self.onward is not None
        handle = which % self.onward_handles
        self.onward.say(
            wire.RefuseFrame(
                handle=Handle(handle),
                stage=StageIndex(stage),
                code=int(code),
                lineage=0,
                position=Position(0),
                reason="",
            )
        )
        named = [asked for asked in self.asked.values() if asked.onward_handle == handle]
        if not named:
            self.expect()
        elif stage != 1:
            self.expect(("close", "successor", int(Code.ORDER_VIOLATION)), *self.lose_onward())
        else:
            (asked,) = named
            passed = self.refusal(asked.handle, code, stage=1)
            ended = [] if code == Code.STALE else self.end(asked, code, refused=False, tell=False)
            self.expect(passed, *ended)

    @precondition(lambda self: self.upstream is not None)
    @rule(who=st.sampled_from(["upstream", "onward", "none", "none"]))
    def a_connection_is_lost(self, who: str) -> None:
        if who == "upstream" and self.upstream is not None:
            self.upstream.lose()
            self.upstream = None
            asked = tuple(self.asked.values())
            self.expect(*(f for one in asked for f in self.end(one, Code.PEER_LOST, refused=False)))
        elif who == "onward" and self.onward is not None:
            self.onward.lose()
            self.expect(*self.lose_onward())

    @precondition(lambda self: self.upstream is None or self.onward is None)
    @rule()
    def peers_connect_again(self) -> None:
        self.dial()

    @rule(us=st.sampled_from([1, 100_000, 399_999, 400_000, 699_999, 700_000]))
    def time_passes(self, us: int) -> None:
        """REQ-010, REQ-018, and the end of an ATTACH that nobody opened for (REQ-046)."""
        until = self.bench.now + us
        facts: list[tuple[int, Fact]] = []
        for asked in tuple(self.asked.values()):
            is_ready = asked.state == "ready"
            due = (
                asked.ready_us + LIMITS.request_idle_us_max
                if is_ready
                else asked.opened_us + LIMITS.open_us_max
            )
            if due <= until:
                facts += [(due, fact) for fact in self.end(asked, Code.EXPIRED, refused=True)]
        self.attached = {r: claim for r, claim in self.attached.items() if claim[1] > until}
        self.bench.pass_until(until)
        self.expect(timed=facts)

    @precondition(lambda self: self.upstream is not None and not self.goaway_came)
    @rule(dice=st.integers(0, 3))
    def the_predecessor_leaves(self, dice: int) -> None:
        """SESS-004."""
        if not dice and self.upstream is not None:
            self.goaway_came = True
            self.upstream.say(wire.GoawayFrame(code=int(Code.GOING_AWAY), reason=""))
            self.expect()

    @precondition(lambda self: not self.is_leaving)
    @rule(dice=st.integers(0, 7))
    def the_stage_leaves(self, dice: int) -> None:
        """SESS-027, SESS-028."""
        if not dice:
            self.is_leaving = True
            self.bench.do(self.stage.drain("leaving", now=self.bench.now))
            told = [far.name for far in (self.upstream, self.onward) if far is not None]
            self.expect(*(("GOAWAY", name, int(Code.GOING_AWAY)) for name in told))

    @invariant()
    def the_stage_holds_what_the_model_holds(self) -> None:
        if hasattr(self, "asked"):
            assert self.stage.requests_open == len(self.asked)
            self.bench.check()


def test_the_faults_are_in_the_order_of_the_checks() -> None:
    assert sorted(CHECKS) == sorted(FAULTS)


TestRequests = RequestMachine.TestCase
TestRequests.settings = share(150, steps=40)
