"""A client and two stages, all honest, on a network that delays, cuts bytes anywhere and loses connections.

Whatever it does: nobody is blamed, no step runs twice or out of order, no budget grows, and in the end
every request has its rows or a failure and no stage holds anything.
"""

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from properties.lossy import LossyPath
from properties.profile import share
from properties.scripted import MODEL_ROOT, WIDTH

from odsi_proto.limits import Limits
from odsi_proto.statemachine.claim import RequestSpec
from odsi_proto.statemachine.effects import PathReady
from odsi_proto.testing.strategies import signer_of, stage_plans_of
from odsi_proto.units import Micros, RequestId
from odsi_proto.wire.codepoints import ErrorCode, LateAction
from odsi_proto.wire.tensor import ActivationCodec, ActivationLayout, NumericProfile

LIMITS = Limits(
    retained_outputs_max=2,
    parked_us_max=Micros(90_000),
    request_idle_us_max=Micros(2_000_000),
    open_us_max=Micros(300_000),
)
SETTLED_US = 3_000_000
"""Longer than anything that a request may wait for."""
LAYOUT = ActivationLayout(codec=ActivationCodec.F32, width=WIDTH)
POSITIONS_MAX, STAGES = 16, 2


class PathMachine(RuleBasedStateMachine):
    """Two requests at most at a time, until the path is broken or the rules run out."""

    @initialize(late_action=st.sampled_from(LateAction))
    def set_up(self, late_action: LateAction) -> None:
        self.path = LossyPath(LIMITS)
        self.late_action = late_action
        self.ready: set[RequestId] = set()
        self.sent: dict[RequestId, list[tuple[int, int]]] = {}
        self.over: set[RequestId] = set()
        perform = self.path.perform

        def watch(name: str, effects: tuple) -> None:  # type: ignore[type-arg]
            self.ready |= {effect.request for effect in effects if isinstance(effect, PathReady)}
            perform(name, effects)

        self.path.perform = watch  # type: ignore[method-assign]

    @property
    def open_now(self) -> list[RequestId]:
        return [r for r in self.sent if r not in self.over and r not in self.path.failed]

    @property
    def sendable(self) -> list[RequestId]:
        return [r for r in self.open_now if r in self.ready]

    @precondition(lambda self: len(self.open_now) < 2)
    @rule()
    def opens(self) -> None:
        path = self.path
        if {link.is_cut for link in path.links[:2]} != {False}:
            return
        request = path.client.new_request_id()
        self.sent[request] = []
        spec = RequestSpec(
            model_root=MODEL_ROOT,
            width=WIDTH,
            stages=stage_plans_of([signer_of(1 + index).participant for index in range(STAGES)]),
            codec=ActivationCodec.F32,
            profile=NumericProfile.FLOAT32,
            positions_max=POSITIONS_MAX,
            rows_returned_max=1,
            first_token_us=Micros(400_000),
            per_token_us=Micros(300_000),
            valid_s=60,
            late_action=self.late_action,
        )
        path.perform(
            "client", path.client.open(request, spec, first=path.first, last=path.last, now=path.now)
        )

    @precondition(lambda self: bool(self.sendable))
    @rule(which=st.integers(0, 1), counts=st.lists(st.integers(1, 3), min_size=1, max_size=3))
    def sends(self, which: int, counts: list[int]) -> None:
        """Chunks of a prompt, without waiting for rows."""
        request = self.sendable[which % len(self.sendable)]
        steps = self.sent[request]
        for count in counts:
            position = sum(steps[-1]) if steps else 0
            if position + count > POSITIONS_MAX:
                return
            payload = memoryview(bytes([position]) * LAYOUT.payload_bytes(count))
            if not self.path.client.may_send(request, len(payload)):
                return
            steps.append((position, count))
            path = self.path
            path.perform("client", path.client.send_step(request, [position] * count, payload, now=path.now))

    @rule(which=st.integers(0, 9), size=st.none() | st.integers(1, 60))
    def some_bytes_arrive(self, which: int, size: int | None) -> None:
        self.path.deliver(which, size)

    @rule(order=st.lists(st.integers(0, 9), min_size=4, max_size=12))
    def many_bytes_arrive(self, order: list[int]) -> None:
        for which in order:
            self.path.deliver(which, None)

    @rule()
    def everything_arrives(self) -> None:
        self.path.deliver_all()

    @rule(name=st.sampled_from(["stage-0", "stage-1"]), count=st.integers(1, 3))
    def an_executor_works(self, name: str, count: int) -> None:
        for _ in range(count):
            self.path.work(name)

    @rule(us=st.sampled_from([1, 1_000, 5_000, 20_000, 20_000, 100_000, 400_000]))
    def time_passes(self, us: int) -> None:
        self.path.pass_until(self.path.now + us)

    @precondition(lambda self: bool(self.open_now))
    @rule(which=st.integers(0, 1))
    def cancels(self, which: int) -> None:
        request = self.open_now[which % len(self.open_now)]
        self.cancel(request, ErrorCode.CANCELLED)

    def cancel(self, request: RequestId, code: ErrorCode) -> None:
        self.over.add(request)
        path = self.path
        path.perform("client", path.client.cancel(request, code, now=path.now))

    @rule(which=st.integers(0, 2), aware=st.integers(0, 2), dice=st.integers(0, 4))
    def a_connection_is_cut(self, which: int, aware: int, dice: int) -> None:
        if not dice:
            self.path.cut(which, aware)

    @precondition(lambda self: any(link.unaware for link in self.path.links))
    @rule()
    def the_other_end_notices(self) -> None:
        self.path.notice(*next(self.path.unaware()))

    @invariant()
    def the_named_invariants_hold(self) -> None:
        if hasattr(self, "path"):
            self.path.check()

    @invariant()
    def rows_are_what_every_stage_made_of_them(self) -> None:
        if hasattr(self, "path"):
            for (_, position), rows in self.path.rows.items():
                assert rows == bytes([position + STAGES]) * LAYOUT.payload_bytes(1)

    def teardown(self) -> None:
        """The network heals: every request comes to an end that its client can name."""
        if not hasattr(self, "path"):
            return
        path = self.path
        for link, end in tuple(path.unaware()):
            path.notice(link, end)
        path.deliver_all()
        path.pass_until(path.now + SETTLED_US)
        for request in self.open_now:
            assert request in self.ready
            answered = {position for r, position in path.rows if r == request}
            assert answered == {position for position, _ in self.sent[request]}
            self.cancel(request, ErrorCode.NO_ERROR)
        path.deliver_all()
        path.pass_until(path.now + SETTLED_US)
        path.deliver_all()
        assert [path.stage(name).requests_open for name in path.jobs] == [0, 0]
        assert [node.next_deadline for node in path.nodes.values()] == [None] * 3
        path.check()


TestPaths = PathMachine.TestCase
TestPaths.settings = share(120, steps=40)
