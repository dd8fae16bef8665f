"""Rules about bounds, causes and ends: nothing without limit, no failure without cause, nothing left."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from odsi_proto.statemachine.effects import Effect, Release, Reserve, Run, SendControl, SendStep
from odsi_proto.statemachine.invariants import violations
from odsi_proto.testing.rogue import Rogue
from odsi_proto.testing.simulation.checker import Checker, Hook, life
from odsi_proto.testing.simulation.faults import FaultKind as Kind
from odsi_proto.wire.codepoints import ErrorCode, FrameType
from odsi_proto.wire.frames import AbandonFrame, CommitFrame, RefuseFrame, decode_frame
from odsi_proto.wire.step import StepHeader
from odsi_proto.wire.varint import Cursor

if TYPE_CHECKING:
    from odsi_proto.testing.simulation.client_process import ClientProcess, Request
    from odsi_proto.testing.simulation.process import Process
    from odsi_proto.testing.simulation.world import World

FRAME_BYTES_MAX = 1 << 20


class Farewell(Checker):
    """Under a handle that was abandoned goes no step; under one that was refused no COMMIT, no REFUSE."""

    name = "farewell"
    specs = ("REQ-011", "REQ-016")

    def __init__(self, world: "World") -> None:
        super().__init__(world)
        self._abandoned: set[tuple[int, int]] = set()
        self._refused: set[tuple[int, int]] = set()

    def hooks(self) -> Mapping[type[Effect], Hook]:
        return {SendControl: self._frame, SendStep: self._step}

    def _frame(self, process: "Process", effect: SendControl) -> None:
        kind = effect.data[0]
        if kind not in {FrameType.ABANDON, FrameType.REFUSE, FrameType.COMMIT} or len(effect.data) < 3:
            return
        frame = decode_frame(Cursor(effect.data), payload_bytes_max=FRAME_BYTES_MAX)
        if isinstance(frame, AbandonFrame):
            self._abandoned.add((effect.connection, frame.handle))
            return
        if not isinstance(frame, RefuseFrame | CommitFrame):
            return
        key = (effect.connection, frame.handle)
        if key in self._refused:
            self.fail(process, f"{type(frame).__name__} under handle {key[1]}, which it has refused")
        if isinstance(frame, RefuseFrame) and frame.code != ErrorCode.STALE:
            self._refused.add(key)

    def _step(self, process: "Process", effect: SendStep) -> None:
        header = StepHeader.decode(Cursor(effect.header, 1))
        if (effect.connection, header.handle) in self._abandoned:
            self.fail(process, f"a step under handle {header.handle}, which it has abandoned")


class Bounded(Checker):
    """Requests at a stage, and steps of one request with its executor, keep to the limits."""

    name = "bounded"
    specs = ("WIRE-041", "STEP-003", "STEP-019")

    def __init__(self, world: "World") -> None:
        super().__init__(world)
        self._open: dict[tuple[str, int], dict[bytes, int]] = {}
        """By process: steps taken of each request that holds state."""

    def hooks(self) -> Mapping[type[Effect], Hook]:
        return {Reserve: self._reserve, Release: self._release, Run: self._run}

    def answered(self, process: "Process", request: bytes) -> None:
        held = self._open.get(life(process), {})
        if request in held:
            held[request] -= 1

    def reserve_answered(self, process: "Process", request: bytes, *, fits: bool) -> None:
        if not fits:
            self._open.get(life(process), {}).pop(request, None)

    def _reserve(self, process: "Process", effect: Reserve) -> None:
        held = self._open.setdefault(life(process), {})
        held[effect.request] = 0
        requests_max = self.world.limits.requests_max
        if len(held) > requests_max:
            self.fail(process, f"{len(held)} requests are open, {requests_max} may be")

    def _release(self, process: "Process", effect: Release) -> None:
        self._open.get(life(process), {}).pop(effect.request, None)

    def _run(self, process: "Process", effect: Run) -> None:
        held = self._open.setdefault(life(process), {})
        held[effect.request] = held.get(effect.request, 0) + 1
        limits = self.world.limits
        steps_max = limits.queued_steps_max + limits.parked_steps_max
        if held[effect.request] > steps_max:
            self.fail(process, f"{held[effect.request]} steps with the executor, {steps_max} may be")


class Invariants(Checker):
    """The named invariants of the state machines hold between calls.

    They take as long as the call itself, so each process is asked after every few calls, and at the end:
    what breaks one of them stays broken.
    """

    name = "invariants"
    specs = ("REQ-011", "STEP-001", "WIRE-041")

    CALLS = 12
    """From one question to the next."""

    def __init__(self, world: "World") -> None:
        super().__init__(world)
        self._calls: dict[str, int] = {}

    def after_call(self, process: "Process") -> None:
        calls = self._calls[process.name] = self._calls.get(process.name, 0) + 1
        if calls % self.CALLS == 0:
            self._ask(process)

    def finished(self) -> None:
        for process in self.world.processes.values():
            if process.is_up and process.is_honest:
                self._ask(process)

    def _ask(self, process: "Process") -> None:
        if not isinstance(process.endpoint, Rogue):
            for found in violations(process.endpoint):
                self.fail(process, found)


class Causes(Checker):
    """A request fails only for a reason that is there: a fault, or a limit or budget that is tight.

    Where nothing goes wrong and nothing is tight, it gets its tokens.
    """

    name = "causes"
    specs = ("REQ-004", "REQ-006", "REQ-010", "REQ-024", "TIME-011")

    def __init__(self, world: "World") -> None:
        super().__init__(world)
        self._allowed: frozenset[int] = frozenset()

    def ended(self, process: "ClientProcess", request: "Request", code: int | None) -> None:
        if self.world.has_rogue_stage:
            return  # a cause of everything
        if not self._allowed:
            self._allowed = possible_codes(self.world)
        if code is not None and code not in self._allowed:
            name = ErrorCode.name_of(code)
            self.fail(process, f"{request.name} ends with {name}, for which there is no cause")


class NothingHeld(Checker):
    """After the last request has ended, nobody holds anything of any request."""

    name = "nothing-held"
    specs = ("REQ-011", "STEP-015", "REQ-006")

    def finished(self) -> None:
        for stage in self.world.stages:
            if stage.is_up and stage.executor.held:
                names = ", ".join(request.hex()[:8] for request in stage.executor.held)
                self.fail(stage, f"its executor still has state of {names}")
        for process in self.world.processes.values():
            if process.is_up and not isinstance(process.endpoint, Rogue):
                self._check_state(process, process.endpoint.state)

    def _check_state(self, process: "Process", state: object) -> None:
        for what in ("requests", "claims", "unanswered"):
            if getattr(state, what, ()):
                self.fail(process, f"its endpoint still has {len(getattr(state, what))} {what}")
        for session in getattr(state, "sessions", {}).values():
            for what in ("requests_in", "requests_out", "attaches"):
                if getattr(session, what):
                    self.fail(process, f"connection {session.connection} still has {what}")
        timers = getattr(state, "timers", None)
        left = [reason for reason, _ in getattr(timers, "at", ()) if reason != "handshake"]
        if left:
            self.fail(process, f"its timers {', '.join(left)} are still armed")


_LOSSES = frozenset(
    {
        Kind.CRASH,
        Kind.CRASH_AND_RESTART,
        Kind.PAUSE,
        Kind.CONNECTION_LOSS_NOTICED,
        Kind.CONNECTION_LOSS_SILENT,
        Kind.PARTITION_ONE_WAY,
        Kind.PARTITION_TWO_WAY,
        Kind.CLOCK_JUMP,
        Kind.SLOW_CONSUMER,
    }
)
"""What can cost a connection: the last two because a handshake can take too long."""

_DELAYS = _LOSSES | {
    Kind.CLOCK_RATE,
    Kind.STRAGGLER,
    Kind.EXECUTOR_SILENT,
    Kind.RESERVE_SLOW,
    Kind.STREAM_RESET,
    Kind.DUPLICATE_STEP,
}
"""What can use up a budget."""


def possible_codes(world: "World") -> frozenset[int]:
    """The codes with which a request of this run may fail."""
    options = world.options
    kinds, tight = {fault.kind for fault in world.plan}, {name for name, _ in options.limits_set}
    is_slow = options.worst_us > min(options.first_token_us, options.per_token_us)
    codes: set[int] = set()
    if kinds & _LOSSES or "silence_us_max" in tight or "handshake_us_max" in tight:
        codes |= {ErrorCode.PEER_LOST, ErrorCode.NO_ROUTE}
    if kinds & _DELAYS or is_slow or options.valid_s < 600 or tight & _TIGHT_TIMES or options.total_us:
        codes |= {ErrorCode.EXPIRED}
    if is_slow or options.stage_budget_us or options.total_us or Kind.STRAGGLER in kinds:
        codes.add(ErrorCode.BUDGET_IMPOSSIBLE)
    if Kind.CANCEL_AT in kinds:
        codes.add(ErrorCode.CANCELLED)
    if Kind.DRAIN in kinds:
        codes |= {ErrorCode.GOING_AWAY, ErrorCode.NO_ROUTE, ErrorCode.PEER_LOST}
    if kinds & {Kind.COMPUTE_FAILURE, Kind.EXECUTOR_SILENT}:
        codes.add(ErrorCode.COMPUTE_FAILED)
    if Kind.RESERVE_REFUSED in kinds or tight & _TIGHT_ROOM or options.queue_steps < 256:
        codes.add(ErrorCode.OVERLOADED)
    if kinds & (_DELAYS | {Kind.STREAM_RESET}) or "parked_us_max" in tight or options.worst_us > 2_000_000:
        codes.add(ErrorCode.MISSING_STEP)
    # The successor need not be connected when the first OPEN comes.
    codes.add(ErrorCode.NO_ROUTE)
    return frozenset(codes)


_TIGHT_TIMES = frozenset({"request_idle_us_max", "open_us_max", "clock_skew_s", "streams_per_connection_max"})
_TIGHT_ROOM = frozenset(
    {
        "parked_steps_max",
        "parked_bytes_max",
        "requests_max",
        "queued_steps_max",
        "queued_bytes_max",
        "incoming_bytes_max",
    }
)
