"""One client, its first and last stage, and several requests, against specs/03 and specs/04.

The two stages are scripted and may lie; on a path of one stage they are one connection.
"""

from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from properties import requests
from properties.claim_model import FIRST_US, LAYOUT, LIMITS, PER_US, POSITIONS_MAX, ROWS_MAX, Mine, nothing
from properties.profile import share
from properties.scripted import MODEL_ROOT, STRANGER, WIDTH, Fact, Far, client_bench, in_any_order

from odsi_proto.errors import LocalProtocolError
from odsi_proto.statemachine.claim import RequestSpec
from odsi_proto.statemachine.client import ClientEndpoint
from odsi_proto.testing.strategies import signer_of, stage_plans_of
from odsi_proto.units import Handle, Micros, Position, RequestId, StageIndex, Tag
from odsi_proto.wire import frames as wire
from odsi_proto.wire.codepoints import ErrorCode as Code
from odsi_proto.wire.identity import SignedMessage
from odsi_proto.wire.messages import Open
from odsi_proto.wire.step import StepHeader
from odsi_proto.wire.tag import root_tag, tag_after
from odsi_proto.wire.tensor import ActivationCodec, NumericProfile


class ClaimMachine(RuleBasedStateMachine):
    """From OPEN to the last row, with every neighbour lying or leaving at any time."""

    @initialize(is_one=st.booleans(), rtt_us=st.sampled_from([None, 0, 30_000, 110_000]))
    def set_up(self, is_one: bool, rtt_us: int | None) -> None:
        self.bench = client_bench(LIMITS)
        self.stages = 1 if is_one else 2
        self.rtt_us = rtt_us
        self.fars: dict[str, Far] = {}
        self.mine: dict[RequestId, Mine] = {}
        self.ended: list[Mine] = []
        self.return_handles = -1
        self.dial()

    @property
    def client(self) -> ClientEndpoint:
        assert isinstance(self.bench.endpoint, ClientEndpoint)
        return self.bench.endpoint

    @property
    def last_name(self) -> str:
        return "first" if self.stages == 1 else "last"

    def dial(self) -> None:
        for name in {"first": 0, self.last_name: 0}:
            if name not in self.fars:
                signer = signer_of(1 if name == "first" else 2)
                self.fars[name] = self.bench.establish(name, signer, endpoint_dials=True)
                if name == self.last_name:
                    self.return_handles = -1
        if self.rtt_us is not None:
            self.client.rtt_measured(self.fars["first"].connection, Micros(self.rtt_us))

    @property
    def is_connected(self) -> bool:
        return {"first", self.last_name} <= set(self.fars)

    def expect(self, *facts: Fact, timed: list[tuple[int, Fact]] | None = None) -> None:
        expected = (timed or []) + [(int(self.bench.now), fact) for fact in facts]
        assert in_any_order(self.bench.facts()) == in_any_order(expected)

    def some(self, which: int, *, ready: bool | None = None) -> Mine | None:
        found = [m for m in self.mine.values() if ready is None or ready == (m.state == "ready")]
        return found[which % len(found)] if found else None

    def fail(self, mine: Mine, stage: int | None, code: int) -> list[Fact]:
        """REQ-025, REQ-062."""
        return [*self.end(mine, Code.CANCELLED), ("failed", mine.request, stage, int(code))]

    def end(self, mine: Mine, code: Code) -> list[Fact]:
        del self.mine[mine.request]
        self.ended.append(mine)
        return [("CANCEL", name, mine.request, int(code)) for name in self.fars]

    def lose(self, name: str) -> list[Fact]:
        """REQ-026: every request of this path is on both connections."""
        del self.fars[name]
        stage = 0 if name == "first" else self.stages - 1
        return [fact for mine in tuple(self.mine.values()) for fact in self.fail(mine, stage, Code.PEER_LOST)]

    def breach(self, name: str, code: Code) -> None:
        self.expect(("close", name, int(code)), *self.lose(name))

    @precondition(lambda self: self.is_connected and len(self.mine) < 3)
    @rule(total_us=st.sampled_from([None, None, 180_000, 600_000]))
    def opens(self, total_us: int | None) -> None:
        client, now = self.client, self.bench.now
        request = client.new_request_id()
        participants = [signer_of(1 + index).participant for index in range(self.stages)]
        spec = RequestSpec(
            model_root=MODEL_ROOT,
            width=WIDTH,
            stages=stage_plans_of(participants),
            codec=ActivationCodec.F16,
            profile=NumericProfile.FLOAT32,
            positions_max=POSITIONS_MAX,
            rows_returned_max=ROWS_MAX,
            first_token_us=Micros(FIRST_US),
            per_token_us=Micros(PER_US),
            total_us=None if total_us is None else Micros(total_us),
            valid_s=60,
        )
        first, last = self.fars["first"].connection, self.fars[self.last_name].connection
        made_before = len(self.bench.choices.made)
        self.bench.do(client.open(request, spec, first=first, last=last, now=now))
        token, secret = self.bench.choices.made[made_before:]
        (_, opening), (_, attach) = self.bench.facts()
        frame = opening[2]
        assert opening[:2] == ("OpenFrame", "first")
        assert isinstance(frame, wire.OpenFrame)
        assert attach == ("AttachFrame", self.last_name, requests.attach_frame(request, token=token))
        message = SignedMessage.decode("open", frame.message)
        assert Open.decode(message.body).request_id == request
        assert (len(secret), frame.stage) == (32, 0)
        self.mine[request] = Mine(
            request=request,
            message=message,
            handle=frame.handle,
            secret=secret,
            path_due=now + LIMITS.open_us_max,
            opened_us=int(now),
            total_us=total_us,
            tag=root_tag(request),
        )
        with pytest.raises(LocalProtocolError):
            client.open(request, spec, first=first, last=last, now=now)
        self.expect()

    @precondition(lambda self: self.is_connected and bool(self.mine))
    @rule(
        which=st.integers(0, 2),
        stage=st.integers(0, 1),
        kind=st.sampled_from(["right"] * 9 + ["signer", "promise", "beyond"]),
    )
    def a_commit(self, which: int, stage: int, kind: str) -> None:
        """REQ-020, REQ-014."""
        mine = self.some(which)
        assert mine is not None
        stage %= self.stages
        forged: dict[str, dict[str, Any]] = {
            "right": {},
            "signer": {"by": STRANGER},
            "promise": {"price": 1},
            "beyond": {"frame_stage": self.stages},
        }
        self.fars["first"].say(requests.commit_frame(mine.message, stage, handle=mine.handle, **forged[kind]))
        if kind != "right":
            self.breach("first", Code.MALFORMED)
            return
        if mine.state == "opening":
            mine.commits.add(stage)
        self.expect(*self.ready(mine))

    def ready(self, mine: Mine) -> list[Fact]:
        """REQ-021."""
        if mine.state == "opening" and len(mine.commits) == self.stages and mine.return_handle is not None:
            mine.state = "ready"
            return [("ready", mine.request)]
        return []

    @precondition(lambda self: self.is_connected and bool(self.mine))
    @rule(which=st.integers(0, 2), skip=st.integers(0, 2))
    def attached(self, which: int, skip: int) -> None:
        """REQ-020; a second one changes nothing, whatever its handle."""
        mine = self.some(which)
        assert mine is not None
        if mine.return_handle is None:
            self.return_handles += 1 + skip
            mine.return_handle = self.return_handles
            handle = self.return_handles
        else:
            handle = skip
        frame = wire.AttachedFrame(request_id=mine.request, handle=Handle(handle))
        self.fars[self.last_name].say(frame)
        self.expect(*self.ready(mine))

    @precondition(lambda self: self.is_connected)
    @rule(which=st.integers(0, 2), kind=st.sampled_from(["unknown", "elsewhere", "not above"]))
    def attached_that_is_wrong(self, which: int, kind: str) -> None:
        """REQ-048, REQ-013; the handle of one that is ignored is known all the same (REQ-016)."""
        mine = self.some(which, ready=False)
        if kind == "unknown":
            self.return_handles += 1
            frame = wire.AttachedFrame(request_id=RequestId(bytes(16)), handle=Handle(self.return_handles))
            over = wire.AbandonFrame(handle=Handle(self.return_handles), code=int(Code.EXPIRED), reason="")
            self.fars[self.last_name].say(frame, over)
            self.expect()
        elif mine is not None and kind == "elsewhere" and self.stages == 2:
            self.fars["first"].say(wire.AttachedFrame(request_id=mine.request, handle=Handle(99)))
            self.expect()
        elif (
            mine is not None
            and mine.return_handle is None
            and self.return_handles >= 0
            and kind == "not above"
        ):
            frame = wire.AttachedFrame(request_id=mine.request, handle=Handle(self.return_handles))
            self.fars[self.last_name].say(frame)
            self.breach(self.last_name, Code.ORDER_VIOLATION)

    @precondition(lambda self: any(m.state == "ready" for m in self.mine.values()))
    @rule(which=st.integers(0, 2), count=st.integers(1, 4))
    def sends_a_step(self, which: int, count: int) -> None:
        """STEP-031, STEP-040, TIME-002, TIME-010, TIME-041, TIME-042."""
        mine, now = self.some(which, ready=True), int(self.bench.now)
        assert mine is not None
        payload_bytes = LAYOUT.payload_bytes(count)
        steps, sent_bytes = mine.sent
        has_credit = steps < mine.granted[0] and sent_bytes + payload_bytes <= mine.granted[1]
        is_busy = any(position >= mine.answered for position in mine.awaited)
        if mine.position + count > POSITIONS_MAX or (is_busy and not has_credit):
            self.can_not_send(mine, count)
            return
        left = max(0, mine.granted[0] - steps), max(0, mine.granted[1] - sent_bytes)
        assert tuple(self.client.credit(mine.request)) == left
        mine.sent = steps + 1, sent_bytes + payload_bytes
        tokens = list(range(mine.position, mine.position + count))
        payload = memoryview(bytes([7]) * LAYOUT.payload_bytes(count))
        self.bench.do(self.client.send_step(mine.request, tokens, payload, now=self.bench.now))
        if not mine.position:
            mine.started_us = now
        is_prompt = not mine.position or is_busy
        budget_us = max(0, FIRST_US - (now - mine.started_us)) if is_prompt else PER_US
        owd_us = (self.rtt_us or 0) // 2
        left_us = budget_us
        if mine.total_us is not None:
            left_us = max(0, min(budget_us, mine.total_us - (now - mine.opened_us)))
        after = tag_after(Tag(mine.tag), mine.secret, Position(mine.position), tokens)
        header = StepHeader(
            handle=Handle(mine.handle),
            lineage=0,
            attempt=0,
            position=Position(mine.position),
            count=count,
            remaining_us=Micros(max(0, left_us - owd_us)),
            owd_us=Micros(owd_us),
            tag_before=Tag(mine.tag),
            tag_after=after,
        )
        mine.awaited[mine.position] = header, now + budget_us
        mine.position, mine.tag = mine.position + count, after
        self.expect(("step", "first", header, bytes(payload)))

    @precondition(lambda self: any(m.state == "opening" for m in self.mine.values()))
    @rule(which=st.integers(0, 2))
    def can_not_send_before_the_path_is_ready(self, which: int) -> None:
        mine = self.some(which, ready=False)
        assert mine is not None
        self.can_not_send(mine, 1)

    def can_not_send(self, mine: Mine, count: int) -> None:
        """A caller's fault raises and changes nothing."""
        before = getattr(self.client, "state", None)
        payload = memoryview(bytes(LAYOUT.payload_bytes(count)))
        with pytest.raises(LocalProtocolError):
            self.client.send_step(mine.request, [0] * count, payload, now=self.bench.now)
        assert getattr(self.client, "state", None) == before
        self.expect()

    def rows(self, header: StepHeader, handle: int, **changes: Any) -> StepHeader:
        values = {
            "handle": Handle(handle),
            "lineage": header.lineage,
            "attempt": 0,
            "position": header.position,
            "count": header.count,
            "remaining_us": Micros(1),
            "owd_us": Micros(0),
            "tag_before": header.tag_before,
            "tag_after": header.tag_after,
        }
        return StepHeader(**{**values, **changes})

    @precondition(lambda self: any(m.awaited for m in self.mine.values()) and self.is_connected)
    @rule(which=st.integers(0, 4), again=st.booleans())
    def rows_arrive(self, which: int, again: bool) -> None:
        """STEP-017, STEP-018: in any order, and a second time in vain."""
        waiting = [(m, position) for m in self.mine.values() for position in m.awaited]
        mine, position = waiting[which % len(waiting)]
        assert mine.return_handle is not None
        header, _ = mine.awaited.pop(position)
        mine.answered = max(mine.answered, header.end)
        mine.reported.pop(position, None)
        payload = bytes([9]) * LAYOUT.payload_bytes(min(header.count, ROWS_MAX))
        self.fars[self.last_name].step(self.rows(header, mine.return_handle), payload)
        self.expect(("rows", mine.request, position, header.end, payload))
        if again:
            self.fars[self.last_name].step(self.rows(header, mine.return_handle, attempt=1), payload)
            self.expect()

    @precondition(lambda self: any(m.state == "ready" for m in self.mine.values()) and self.is_connected)
    @rule(
        which=st.integers(0, 2),
        kind=st.sampled_from(["tag", "count", "lineage", "not sent", "handle"]),
        dice=st.integers(0, 1),
    )
    def rows_that_answer_nothing(self, which: int, kind: str, dice: int) -> None:
        mine = self.some(which, ready=True)
        assert mine is not None
        assert mine.return_handle is not None
        waiting = next(iter(mine.awaited.values()), None)
        if dice or (waiting is None and kind != "not sent"):
            return
        far = self.fars[self.last_name]
        if waiting is None or kind == "not sent":
            place: dict[str, Any] = {"position": Position(mine.position), "count": 1}
            header = self.rows(nothing(), mine.return_handle, **place)
        else:
            wrong: dict[str, dict[str, Any]] = {
                "tag": {"tag_after": Tag(b"wrong   ")},
                "count": {"count": waiting[0].count + 1},
                "lineage": {"lineage": 1},
                "handle": {"handle": Handle(self.return_handles + 1)},
            }
            header = self.rows(waiting[0], mine.return_handle, **wrong[kind])
        far.step(header, bytes(LAYOUT.payload_bytes(min(header.count, ROWS_MAX))))
        if kind == "handle" and waiting is not None:
            self.breach(self.last_name, Code.ORDER_VIOLATION)
        else:
            self.expect(*self.fail(mine, None, Code.STATE_MISMATCH))

    @precondition(
        lambda self: any(m.state == "opening" and m.return_handle is not None for m in self.mine.values())
    )
    @rule()
    def rows_before_the_path_is_ready(self) -> None:
        """REQ-022."""
        mine = next(m for m in self.mine.values() if m.state == "opening" and m.return_handle is not None)
        assert mine.return_handle is not None
        self.fars[self.last_name].step(self.rows(nothing(), mine.return_handle), b"")
        self.expect(*self.fail(mine, None, Code.ORDER_VIOLATION))

    @precondition(lambda self: any(m.return_handle is not None for m in self.ended[-3:]))
    @rule()
    def rows_of_an_ended_request(self) -> None:
        """REQ-028, REQ-016: what was under way is ignored."""
        mine = next(m for m in reversed(self.ended) if m.return_handle is not None)
        far = self.fars.get(self.last_name)
        if far is None or mine.return_handle is None or mine.return_handle > self.return_handles:
            return
        if any(m.return_handle == mine.return_handle for m in self.mine.values()):
            return  # another connection's
        far.step(self.rows(nothing(), mine.return_handle), b"")
        self.expect()

    @precondition(lambda self: self.is_connected and bool(self.mine))
    @rule(
        which=st.integers(0, 2),
        stage=st.integers(0, 2),
        place=st.integers(0, 3),
        is_known=st.booleans(),
        credit=st.tuples(st.integers(0, 9), st.sampled_from([0, 10, 1_000])),
    )
    def a_status(self, which: int, stage: int, place: int, is_known: bool, credit: tuple[int, int]) -> None:
        """REQ-023, REQ-032, REQ-065, TIME-041."""
        mine = self.some(which)
        assert mine is not None
        position = sorted(mine.awaited)[place % len(mine.awaited)] if mine.awaited else place
        zero = Micros(0)
        record = wire.StatusRecord(
            stage=StageIndex(stage),
            lineage=0,
            position=Position(position),
            count=1,
            remaining_us=zero,
            transfer_us=zero,
            queue_us=zero,
            compute_us=zero,
            coordination_us=zero,
            output_bytes=1,
        )
        handle = Handle(mine.handle if is_known else 999)
        frame = wire.StatusFrame(
            handle=handle, credit_steps=credit[0], credit_bytes=credit[1], records=(record,)
        )
        self.fars["first"].say(frame)
        if not is_known:
            self.expect()
            return
        mine.granted = credit
        if position in mine.awaited and stage < self.stages:
            mine.reported[position] = max(mine.reported.get(position, 0), stage + 1)
        self.expect(("status", mine.request, (position,)))

    @precondition(lambda self: self.is_connected and bool(self.mine))
    @rule(
        which=st.integers(0, 2),
        stage=st.integers(0, 2),
        code=st.sampled_from([Code.STALE, Code.OVERLOADED, 999]),
    )
    def a_refuse(self, which: int, stage: int, code: int) -> None:
        """REQ-024, REQ-065, ERR-001."""
        mine = self.some(which)
        assert mine is not None
        refuse = wire.RefuseFrame(
            handle=Handle(mine.handle),
            stage=StageIndex(stage),
            code=int(code),
            lineage=0,
            position=Position(0),
            reason="",
        )
        self.fars["first"].say(refuse)
        if stage >= self.stages:
            self.breach("first", Code.ORDER_VIOLATION)
        else:
            self.expect(*([] if code == Code.STALE else self.fail(mine, stage, code)))

    @precondition(lambda self: any(m.return_handle is not None for m in self.mine.values()))
    @rule(code=st.sampled_from([Code.MISSING_STEP, Code.PEER_LOST]))
    def the_last_stage_abandons(self, code: Code) -> None:
        """REQ-024: the cause is awaited, from the first ABANDON on."""
        mine = next(m for m in self.mine.values() if m.return_handle is not None)
        assert mine.return_handle is not None
        far = self.fars[self.last_name]
        far.say(wire.AbandonFrame(handle=Handle(mine.return_handle), code=int(code), reason=""))
        if mine.abandoned is None:
            mine.abandoned = self.bench.now + LIMITS.abandoned_us_max, int(code)
        self.expect()

    @precondition(lambda self: bool(self.mine))
    @rule(which=st.integers(0, 2), code=st.sampled_from([Code.NO_ERROR, Code.CANCELLED]))
    def cancels(self, which: int, code: Code) -> None:
        mine = self.some(which)
        assert mine is not None
        self.bench.do(self.client.cancel(mine.request, code, now=self.bench.now))
        self.expect(*self.end(mine, code))
        assert self.client.cancel(mine.request, code, now=self.bench.now) == ()

    @precondition(lambda self: bool(self.fars))
    @rule(name=st.sampled_from(["first", "last"]), dice=st.integers(0, 3))
    def a_connection_is_lost(self, name: str, dice: int) -> None:
        if not dice and name in self.fars:
            self.fars[name].lose()
            self.expect(*self.lose(name))

    @precondition(lambda self: not self.is_connected)
    @rule()
    def connects_again(self) -> None:
        self.dial()

    @rule(us=st.sampled_from([1, 1_000, 70_002, 70_003, 119_999, 120_000, 249_999, 250_000]))
    def time_passes(self, us: int) -> None:
        """REQ-027, REQ-024, TIME-026."""
        until = self.bench.now + us
        facts: list[tuple[int, Fact]] = []
        for mine in tuple(self.mine.values()):
            due: list[tuple[int, int | None, int]] = []
            if mine.state == "opening":
                missing = [stage for stage in range(self.stages) if stage not in mine.commits]
                due.append((mine.path_due, missing[0] if missing else self.stages - 1, Code.EXPIRED))
            if mine.total_us is not None:
                due.append((mine.opened_us + mine.total_us, self.waits_for(mine), Code.EXPIRED))
            if mine.abandoned is not None:
                due.append((mine.abandoned[0], None, mine.abandoned[1]))
            for position, (_, overdue) in mine.awaited.items():
                stage = min(mine.reported.get(position, 0), self.stages - 1)
                due.append((overdue, stage, Code.EXPIRED))
            first = min(due, key=lambda item: item[0], default=None)
            if first is not None and first[0] <= until:
                at, stage_or_none, code = first
                at = max(at, int(self.bench.now))
                facts += [(at, fact) for fact in self.fail(mine, stage_or_none, code)]
        self.bench.pass_until(until)
        self.expect(timed=facts)

    def waits_for(self, mine: Mine) -> int | None:
        """TIME-026."""
        if mine.state == "opening":
            missing = [stage for stage in range(self.stages) if stage not in mine.commits]
            return missing[0] if missing else self.stages - 1
        if not mine.awaited:
            return None
        return min(mine.reported.get(min(mine.awaited), 0), self.stages - 1)

    @invariant()
    def the_named_invariants_hold(self) -> None:
        if hasattr(self, "bench"):
            self.bench.check()


TestClaims = ClaimMachine.TestCase
TestClaims.settings = share(150, steps=40)
