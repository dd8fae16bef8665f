"""One stage, a scripted predecessor that sends any step, and the model of what each must cause."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from properties import requests
from properties.profile import share
from properties.scripted import CLIENT, UNIX_S_AT_ZERO, WIDTH, Fact, Far, in_any_order, stage_bench
from properties.step_model import StepModel, Timed

from odsi_proto.errors import LocalProtocolError
from odsi_proto.limits import Limits
from odsi_proto.statemachine.budget import ExecutorLoad
from odsi_proto.statemachine.stage import StageEndpoint
from odsi_proto.testing.strategies import signer_of, stage_plans_of
from odsi_proto.units import Handle, Micros, Position, RequestId, Tag
from odsi_proto.wire import frames as wire
from odsi_proto.wire.codepoints import ErrorCode, LateAction
from odsi_proto.wire.messages import Deadline
from odsi_proto.wire.step import DURATION_US_MAX, StepHeader
from odsi_proto.wire.tag import root_tag, tag_after
from odsi_proto.wire.tensor import ActivationCodec, ActivationLayout

LIMITS = Limits(
    step_positions_max=4,
    step_payload_bytes_max=24,
    parked_steps_max=2,
    parked_bytes_max=40,
    parked_us_max=Micros(90_000),
    retained_outputs_max=2,
    request_idle_us_max=Micros(3_500_000),
    clock_skew_s=1,
    queued_steps_max=3,
    queued_bytes_max=56,
)
VALID_S = 1
"""Expiry and skew together pass before the idle time does."""

DEADLINES = tuple(
    tuple(Deadline(kind=kind, budget_us=Micros(us)) for kind, us in given)
    for given in (
        ((1, 400_000), (2, 300_000)),
        ((1, 200_000), (2, 300_000), (3, 250_000)),
        ((2, 220_000), (1, 210_000), (2, 900_000), (99, 800_000)),
        ((3, 200_000), (1, 300_000)),
        ((1, 200_000),),
        (),
    )
)
"""Kinds 1 to 3 are FIRST_TOKEN, PER_TOKEN and TOTAL; another is ignored, and so is a second one."""

FAULTS = (
    *("tag before", "tag after", "lineage", "count", "inside", "at the end", "past the end", "used up"),
    *("exaggerated", "far", "extended", "rows"),
)
rtts = st.none() | st.integers(0, 60_000)


class StepMachine(RuleBasedStateMachine):
    """Every kind of arrival, in any order, against the table of specs/03 section 5."""

    @initialize(
        is_last=st.booleans(),
        codec=st.sampled_from(ActivationCodec),
        rtt_up_us=rtts,
        rtt_on_us=rtts,
        changes=st.fixed_dictionaries(
            {
                "late_action": st.sampled_from(LateAction),
                "deadlines": st.sampled_from(DEADLINES),
                "plan": st.sampled_from([(0, 0, 0), (30_000, 100_000, 240_000), (0, 250_001, 0)]),
                "lineage": st.integers(0, 1),
                "positions_max": st.sampled_from([16, 16, 5]),
                "rows_returned_max": st.integers(1, 2),
            }
        ),
    )
    def set_up(
        self,
        is_last: bool,
        codec: ActivationCodec,
        rtt_up_us: int | None,
        rtt_on_us: int | None,
        changes: dict[str, Any],
    ) -> None:
        self.bench = stage_bench(LIMITS)
        self.stages = 1 if is_last else 2
        plan = tuple(map(Micros, changes.pop("plan")))
        participants = [signer_of(1 + index).participant for index in range(self.stages)]
        stages = tuple(
            replace(stage, budget_us=plan[0], remaining_min_us=plan[1], remaining_max_us=plan[2])
            for stage in stage_plans_of(participants)
        )
        self.changes = {**changes, "stages": stages, "codecs": (int(codec),) * (self.stages + 1)}
        self.layout = ActivationLayout(codec=codec, width=WIDTH)
        self.rtts = rtt_up_us, rtt_on_us
        self.requests_count = self.onward_handles = 0
        self.upstream: Far | None = None
        name, signer = ("client", CLIENT) if is_last else ("successor", signer_of(2))
        self.onward = self.bench.establish(name, signer, endpoint_dials=not is_last)
        self.stream_open: tuple[int, StepHeader, bytes, int] | None = None
        self.late: list[tuple[RequestId, int]] = []
        """Steps of ended requests that the executor has not answered."""
        self.open_request(self.fresh_id())

    @property
    def stage(self) -> StageEndpoint:
        assert isinstance(self.bench.endpoint, StageEndpoint)
        return self.bench.endpoint

    def fresh_id(self) -> RequestId:
        self.requests_count += 1
        return RequestId(bytes([self.requests_count]) * 16)

    def open_request(self, request: RequestId) -> None:
        """Through OPEN, reservation and the way on; the handles of the predecessor count up."""
        bench, self.load = self.bench, None
        if self.stage.state.load is not None:
            self.load = (9, 900, 0)  # an OPEN is refused while the executor takes nothing
            self.stage.executor_measured(_load(*self.load))
        if self.upstream is None:
            self.upstream, self.handle = bench.establish("upstream", CLIENT), -1
            if self.rtts[0] is not None:
                self.stage.rtt_measured(self.upstream.connection, Micros(self.rtts[0]))
        if self.rtts[1] is not None:
            self.stage.rtt_measured(self.onward.connection, Micros(self.rtts[1]))
        self.handle += 1
        opened = requests.open_of(
            request,
            stages_count=self.stages,
            unix_s=bench.unix_s,
            expiry_s=bench.unix_s + VALID_S,
            **self.changes,
        )
        message = requests.signed_open(opened)
        self.upstream.say(requests.open_frame(message, handle=self.handle, stage=0))
        bench.do(self.stage.reserved(request, now=bench.now))
        if self.stages == 1:
            self.onward.say(requests.attach_frame(request))
        else:
            self.onward.say(requests.commit_frame(message, 1, handle=self.onward_handles))
        words = [fact[0] for _, fact in bench.facts()]
        way_on = ["COMMIT", "AttachedFrame"] if self.stages == 1 else ["COMMIT", "OpenFrame", "COMMIT"]
        assert words == ["reserve", *way_on]
        self.model = StepModel(
            opened=opened,
            limits=LIMITS,
            stage=0,
            handle=self.handle,
            onward_handle=self.onward_handles,
            row_in_bytes=self.layout.row_bytes,
            ready_at_us=bench.now,
            rtt_up_us=self.rtts[0],
            rtt_on_us=self.rtts[1],
            tag=root_tag(request),
            load=self.load,
        )
        self.onward_handles += 1
        self.stream_open = None

    def expect(self, facts: list[Fact] | None = None, timed: Timed | None = None) -> None:
        """What was done since the last check is what the model says."""
        expected = (timed or []) + [(int(self.bench.now), fact) for fact in facts or []]
        found = []
        for at, fact in self.bench.facts():
            if fact[0] == "StatusFrame":
                frame = fact[2]
                assert isinstance(frame, wire.StatusFrame)
                credit = frame.credit_steps, frame.credit_bytes
                found.append((at, ("STATUS", frame.handle, credit, tuple(map(_numbers, frame.records)))))
            else:
                found.append((at, fact))
        assert in_any_order(found) == in_any_order(expected)
        if not self.model.is_open:
            self.late += [(self.model.request, position) for position in self.model.with_executor]
            self.model.with_executor = []
        if ("close", "upstream") in [fact[:2] for fact in facts or []]:
            self.upstream, self.stream_open = None, None

    def tag(self, position: int) -> Tag:
        """Of the history that the client means."""
        return tag_after(root_tag(self.model.request), b"", Position(0), [0] * position)

    def right_step(self, position: int, count: int, remaining_us: int = 250_000) -> StepHeader:
        """A step as the client means it."""
        held = self.model.steps.get(position)
        if held is not None:
            return replace(held.header, attempt=held.header.attempt + 1)
        return StepHeader(
            handle=Handle(self.handle),
            lineage=self.model.opened.lineage,
            attempt=0,
            position=Position(position),
            count=count,
            remaining_us=Micros(remaining_us),
            owd_us=Micros(0),
            tag_before=self.tag(position),
            tag_after=self.tag(position + count),
        )

    def wrong(self, header: StepHeader, fault: str, number: int) -> StepHeader:
        """The step with one thing about it changed."""
        model = self.model
        end = model.opened.positions_max
        changes: dict[str, dict[str, Any]] = {
            "tag before": {"tag_before": Tag(b"wrong   ")},
            "tag after": {"tag_after": Tag(b"wrong  2")},
            "lineage": {"lineage": number % 3},
            "count": {"count": 1 + number % (LIMITS.step_positions_max + 1)},
            "inside": {"position": Position(number % max(1, model.position))},
            "at the end": {"position": Position(max(0, end - header.count))},
            "past the end": {"position": Position(end - header.count + 1)},
            "used up": {"remaining_us": Micros(0)},
            "exaggerated": {"remaining_us": Micros(DURATION_US_MAX), "owd_us": Micros(DURATION_US_MAX)},
            "far": {"owd_us": Micros(70_000)},
            "extended": {"extension": b"new"},
            "rows": {},
        }
        return replace(header, **changes[fault])

    def send(self, header: StepHeader, *, fill: int = 1) -> None:
        """A whole step at once, and what must come of it."""
        assert self.upstream is not None
        payload = bytes([fill]) * self.layout.payload_bytes(header.count)
        self.upstream.step(header, payload)
        facts, is_admitted = self.model.head(header, self.bench.now)
        if is_admitted:
            facts += self.model.whole(header, payload, self.bench.now, self.bench.now)
        self.expect(facts)

    @precondition(lambda self: self.upstream is not None)
    @rule(count=st.integers(1, 3), remaining_us=st.sampled_from([250_000, 60_000]))
    def the_next_step_arrives(self, count: int, remaining_us: int) -> None:
        self.send(self.right_step(self.model.position, count, remaining_us))

    @precondition(lambda self: self.upstream is not None)
    @rule(gap=st.integers(1, 4), count=st.integers(1, 3), remaining_us=st.sampled_from([250_000, 60_000]))
    def a_step_arrives_early(self, gap: int, count: int, remaining_us: int) -> None:
        self.send(self.right_step(self.model.position + gap, count, remaining_us))

    @precondition(lambda self: self.upstream is not None and bool(self.model.steps))
    @rule(which=st.integers(0, 9))
    def a_step_arrives_again(self, which: int) -> None:
        known = sorted(self.model.steps)
        self.send(self.right_step(known[which % len(known)], 1))

    @precondition(lambda self: self.upstream is not None and bool(self.model.steps))
    @rule(which=st.integers(0, 9), fault=st.sampled_from(["tag before", "tag after", "count", "rows"]))
    def a_step_arrives_again_as_another(self, which: int, fault: str) -> None:
        known = sorted(self.model.steps)
        header = self.wrong(self.right_step(known[which % len(known)], 1), fault, which)
        self.send(header, fill=2 if fault == "rows" else 1)

    @precondition(lambda self: self.upstream is not None)
    @rule(
        gap=st.integers(-2, 2),
        count=st.integers(1, 4),
        fault=st.sampled_from(FAULTS),
        number=st.integers(0, 9),
    )
    def a_step_arrives_that_is_wrong(self, gap: int, count: int, fault: str, number: int) -> None:
        right = self.right_step(max(0, self.model.position + gap), count)
        self.send(self.wrong(right, fault, number), fill=2 if fault == "rows" else 1)

    @precondition(lambda self: self.upstream is not None and self.stream_open is None)
    @rule(gap=st.integers(0, 2), count=st.integers(1, 3), fault=st.none() | st.sampled_from(FAULTS))
    def a_header_arrives(self, gap: int, count: int, fault: str | None) -> None:
        assert self.upstream is not None
        header = self.right_step(self.model.position + gap, count)
        if fault is not None:
            header = self.wrong(header, fault, gap)
        stream = self.upstream.new_stream()
        self.upstream.stream(stream, header.encode(), fin=False)
        facts, is_admitted = self.model.head(header, self.bench.now)
        if is_admitted:
            payload = bytes([2 if fault == "rows" else 1]) * self.layout.payload_bytes(header.count)
            self.stream_open = stream, header, payload, self.bench.now
        self.expect(facts)

    @precondition(lambda self: self.stream_open is not None)
    @rule(half=st.booleans())
    def the_rows_arrive(self, half: bool) -> None:
        assert self.upstream is not None
        assert self.stream_open is not None
        (stream, header, payload, first_us), self.stream_open = self.stream_open, None
        if half:
            self.upstream.stream(stream, payload[:5], fin=False)
            self.expect()
            payload_left = payload[5:]
        else:
            payload_left = payload
        self.upstream.stream(stream, payload_left, fin=True)
        self.expect(self.model.whole(header, payload, first_us, self.bench.now))

    @precondition(lambda self: self.stream_open is not None)
    @rule()
    def the_stream_is_reset(self) -> None:
        assert self.upstream is not None
        assert self.stream_open is not None
        stream, self.stream_open = self.stream_open[0], None
        bench = self.bench
        bench.do(self.stage.stream_reset(self.upstream.connection, stream, now=bench.now))
        self.expect()

    @precondition(lambda self: self.upstream is not None and self.model.is_open)
    @rule(
        times=st.integers(1, 4),
        owd_us=st.sampled_from([0, 30_000, DURATION_US_MAX]),
        remaining_us=st.sampled_from([250_000, 0, DURATION_US_MAX]),
    )
    def steps_are_done_one_by_one(self, times: int, owd_us: int, remaining_us: int) -> None:
        """As a client decodes: each is answered before the next."""
        for _ in range(times):
            header = self.right_step(self.model.position, 1, remaining_us)
            self.send(replace(header, owd_us=Micros(owd_us)))
            while self.model.with_executor and self.model.is_open:
                self.the_executor_answers(2, 2)

    @precondition(lambda self: bool(self.model.with_executor))
    @rule(waited=st.integers(0, 4), ran=st.integers(0, 4))
    def the_executor_answers(self, waited: int, ran: int) -> None:
        model, now = self.model, self.bench.now
        position = model.with_executor[0]
        step = model.steps[position]
        started_us = step.ready_us + (now - step.ready_us) * waited // 4
        finished_us = started_us + (now - started_us) * ran // 4
        wanted = (
            min(step.header.count, model.opened.rows_returned_max) if model.is_last else step.header.count
        )
        rows = bytes([0x80 + position]) * self.layout.payload_bytes(wanted)
        effects = self.stage.output(
            model.request,
            Position(position),
            memoryview(rows),
            started_us=Micros(started_us),
            finished_us=Micros(finished_us),
            now=now,
        )
        self.bench.do(effects)
        self.expect(model.answered(rows, started_us, finished_us, now))

    @precondition(lambda self: bool(self.model.with_executor))
    @rule()
    def the_executor_fails(self) -> None:
        position, now = Position(self.model.with_executor[0]), self.bench.now
        self.bench.do(self.stage.failed(self.model.request, position, "out of memory", now=now))
        self.expect(self.model.failed())

    @precondition(lambda self: bool(self.model.with_executor))
    @rule()
    def the_executor_finds_nothing_left(self) -> None:
        position, now = Position(self.model.with_executor[0]), self.bench.now
        expected = self.model.expired(int(now))
        if expected is None:
            with pytest.raises(LocalProtocolError):
                self.stage.expired(self.model.request, position, now=now)
        else:
            self.bench.do(self.stage.expired(self.model.request, position, now=now))
        self.expect(expected)

    @rule(steps=st.integers(0, 3), free_bytes=st.sampled_from([0, 20, 100]))
    def the_executor_is_measured(self, steps: int, free_bytes: int) -> None:
        self.model.load = (steps, free_bytes, 7_000)
        self.stage.executor_measured(_load(*self.model.load))

    @precondition(lambda self: self.stages == 2 and self.model.is_open)
    @rule(steps=st.integers(0, 9), free_bytes=st.sampled_from([0, 17, 1_000]))
    def the_successor_gives_credit(self, steps: int, free_bytes: int) -> None:
        self.onward.say(
            wire.StatusFrame(
                handle=Handle(self.model.onward_handle),
                credit_steps=steps,
                credit_bytes=free_bytes,
                records=(),
            )
        )
        self.model.onward_credit = steps, free_bytes
        self.expect()

    @precondition(lambda self: bool(self.late))
    @rule(fails=st.booleans())
    def the_executor_answers_for_an_ended_request(self, fails: bool) -> None:
        (request, position), now = self.late.pop(0), self.bench.now
        if fails:
            self.bench.do(self.stage.failed(request, Position(position), "late", now=now))
        else:
            zero = Micros(0)
            answer = self.stage.output(
                request, Position(position), memoryview(b""), started_us=zero, finished_us=zero, now=now
            )
            self.bench.do(answer)
        self.expect()

    @rule(us=st.sampled_from([1, 1_000, 4_999, 5_000, 40_000, 59_999, 60_000, 89_999, 90_000]))
    def time_passes(self, us: int) -> None:
        self.pass_until(self.bench.now + us)

    @precondition(lambda self: not self.model.parked)
    @rule(us=st.sampled_from([1_000_000, 3_499_999, 3_500_000]))
    def much_time_passes(self, us: int) -> None:
        self.pass_until(self.bench.now + us)

    def pass_until(self, until: int) -> None:
        """Timers fire when they are due, and no others."""
        self.bench.pass_until(until)
        self.expect(timed=self.model.pass_until(until))

    @precondition(lambda self: self.model.is_open and not self.model.parked)
    @rule(seconds=st.integers(0, 1))
    def the_end_of_the_request_comes(self, seconds: int) -> None:
        """To the last second in which steps are taken, or to the first in which none is."""
        unix_s = self.model.opened.expiry_s + LIMITS.clock_skew_s + seconds
        self.pass_until(max(int(self.bench.now), (unix_s - UNIX_S_AT_ZERO) * 1_000_000))

    @precondition(lambda self: self.upstream is not None and self.handle > 0)
    @rule(back=st.integers(1, 3))
    def a_step_of_a_request_that_ended(self, back: int) -> None:
        assert self.upstream is not None
        header = self.right_step(self.model.position, 1)
        handle = Handle(max(0, self.handle - back))
        self.upstream.step(replace(header, handle=handle), bytes(self.layout.payload_bytes(header.count)))
        self.expect()

    @precondition(lambda self: self.upstream is not None and not self.model.is_open)
    @rule(beyond=st.integers(1, 3))
    def a_step_of_a_request_that_was_never_opened(self, beyond: int) -> None:
        assert self.upstream is not None
        header = replace(self.right_step(self.model.position, 1), handle=Handle(self.handle + beyond))
        self.upstream.step(header, bytes(self.layout.payload_bytes(header.count)))
        self.expect([("close", "upstream", int(ErrorCode.ORDER_VIOLATION))])

    @precondition(lambda self: not self.model.is_open)
    @rule(same_id=st.booleans())
    def another_request_is_opened(self, same_id: bool) -> None:
        self.open_request(self.fresh_id() if not same_id or self.late else self.model.request)

    @precondition(lambda self: not self.model.is_open and self.upstream is not None and bool(self.late))
    @rule()
    def an_id_is_opened_again_too_soon(self) -> None:
        assert self.upstream is not None
        opened = replace(self.model.opened, request_id=self.late[0][0], expiry_s=self.bench.unix_s + VALID_S)
        self.handle += 1
        self.upstream.say(requests.open_frame(requests.signed_open(opened), handle=self.handle, stage=0))
        place = (self.handle, 0, int(ErrorCode.NOT_AUTHORISED), opened.lineage, 0)
        self.expect([("REFUSE", "upstream", *place)])

    @invariant()
    def the_stage_holds_what_the_model_holds(self) -> None:
        if hasattr(self, "model"):
            assert self.stage.requests_open == self.model.is_open
            self.bench.check()


def _load(steps: int, free_bytes: int, queue_us: int) -> ExecutorLoad:
    return ExecutorLoad(
        queue_us=Micros(queue_us), decode_us=None, credit_steps=steps, credit_bytes=free_bytes
    )


def _numbers(record: wire.StatusRecord) -> tuple[int, ...]:
    places = (record.stage, record.lineage, record.position, record.count, record.remaining_us)
    times = (record.transfer_us, record.queue_us, record.compute_us, record.coordination_us)
    return (*places, *times, record.output_bytes, record.flags)


TestSteps = StepMachine.TestCase
TestSteps.settings = share(200, steps=40)
