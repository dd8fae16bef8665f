"""A stage's executor: one step at a time, the least slack first, with everything that can go wrong."""

from collections import deque
from typing import TYPE_CHECKING, NamedTuple

from odsi_proto.statemachine.budget import ExecutorLoad
from odsi_proto.statemachine.effects import Release, Reserve, Run
from odsi_proto.statemachine.stage import StageEndpoint
from odsi_proto.testing.rogue import RogueStage
from odsi_proto.testing.simulation.model import StageMemory, split_rows
from odsi_proto.units import Micros, RequestId
from odsi_proto.wire.tensor import ActivationCodec, ActivationLayout

if TYPE_CHECKING:
    from odsi_proto.testing.simulation.stage_process import StageProcess

_F32 = ActivationCodec.F32


class _Waiting(NamedTuple):
    """A step that waits for its turn."""

    effect: Run
    asked_us: Micros
    number: int

    @property
    def urgency(self) -> tuple[int, int]:
        """When it has to begin at the latest, and its turn among equals."""
        return self.asked_us + self.effect.slack_us, self.number


class Executor:
    """Carries out ``Reserve``, ``Run`` and ``Release`` of one incarnation of a stage."""

    def __init__(self, process: "StageProcess", stage: int, row_width: int) -> None:
        self.times_slower = 1
        """Fault: a straggler."""
        self.failures = 0
        """Fault: so many steps fail."""
        self.is_silent = False
        """Fault: steps that begin get no answer until :meth:`heal`."""
        self.refuses = False
        """Fault: no state fits."""
        self.reserve_late_us = 0
        """Fault: state takes so long to set aside."""
        self._process = process
        self._stage = stage
        self._row_bytes = ActivationLayout(codec=_F32, width=row_width).row_bytes
        self._memories: dict[RequestId, StageMemory] = {}
        self._queues: dict[RequestId, deque[_Waiting]] = {}
        """By request, whose steps keep their order."""
        self._waiting = 0
        self._decode_us: Micros | None = None
        self._unanswered: list[Run] = []
        self._is_busy = False
        self._asked = 0

    @property
    def held(self) -> tuple[RequestId, ...]:
        """Requests whose state is set aside."""
        return tuple(self._memories)

    def reserve(self, effect: Reserve) -> None:
        """Set state aside; the answer never comes inside the call that asked."""
        self._process.later(self.reserve_late_us, self._reserved, effect)

    def run(self, effect: Run) -> None:
        """Run a step after those of its request asked for before."""
        queue = self._queues.setdefault(effect.request, deque())
        self._asked += 1
        queue.append(_Waiting(effect, self._process.now, self._asked))
        self._waiting += 1
        if not self._is_busy:
            self._begin()
        self.measure()

    def release(self, effect: Release) -> None:
        """Give state back; steps of the request that wait will fail."""
        self._memories.pop(effect.request, None)

    def measure(self) -> None:
        """Say what it takes from here on."""
        held, options = self._waiting + self._is_busy, self._process.world.options
        load = ExecutorLoad(
            queue_us=Micros(held * (self._decode_us or 0)),
            decode_us=self._decode_us,
            credit_steps=max(0, options.queue_steps - held),
            credit_bytes=1 << 30,
        )
        self._process.world.checks.measured(self._process, load)
        self._process.stage_endpoint.executor_measured(load)

    def heal(self) -> None:
        """End every fault; what was left without an answer has failed."""
        self.times_slower, self.failures, self.reserve_late_us = 1, 0, 0
        self.is_silent = self.refuses = False
        unanswered, self._unanswered = self._unanswered, []
        for effect in unanswered:
            self._process.later(0, self._failed, effect, "the executor was stuck")

    def _reserved(self, effect: Reserve) -> None:
        process, request = self._process, effect.request
        endpoint = process.stage_endpoint
        process.world.checks.reserve_answered(process, request, fits=not self.refuses)
        if self.refuses:
            reason = f"{effect.positions_max} positions do not fit"
            process.act(
                f"reserve_failed {request.hex()[:8]}",
                lambda: endpoint.reserve_failed(request, reason, now=process.now),
            )
            return
        self._memories[request] = StageMemory(self._stage)
        process.act(f"reserved {request.hex()[:8]}", lambda: endpoint.reserved(request, now=process.now))

    def _begin(self) -> None:
        """The least slack first; of equals the one that was asked for first."""
        process = self._process
        request = min(self._queues, key=lambda one: self._queues[one][0].urgency)
        effect, asked_us, _ = self._queues[request].popleft()
        if not self._queues[request]:
            del self._queues[request]
        self._waiting -= 1
        self._is_busy = True
        if effect.is_droppable and process.now - asked_us >= effect.remaining_us:
            process.later(0, self._expired, effect)
            return
        compute_us = process.world.options.compute_us * self.times_slower
        if compute_us:
            compute_us += process.random.randint(0, compute_us // 4)
        process.later(compute_us, self._ran, effect, process.now)

    def _ran(self, effect: Run, started_us: Micros) -> None:
        process = self._process
        self._is_busy = False
        if effect.count == 1:
            self._decode_us = Micros(process.now - started_us)
        self.measure()
        if self.is_silent:
            self._unanswered.append(effect)
        elif effect.request not in self._memories:
            self._failed(effect, "its state was given back")
        elif self.failures:
            self.failures -= 1
            self._failed(effect, "out of memory")
        else:
            self._answer(process.stage_endpoint, effect, started_us)
        self._next()

    def _expired(self, effect: Run) -> None:
        process, request, position = self._process, effect.request, effect.position
        endpoint = process.stage_endpoint
        self._is_busy = False
        self.measure()
        process.world.checks.answered(process, request)
        process.act(
            f"expired {request.hex()[:8]} {position}",
            lambda: endpoint.expired(request, position, now=process.now),
        )
        self._next()

    def _next(self) -> None:
        if self._waiting and not self._is_busy and self._process.executor is self:
            self._begin()
            self.measure()

    def _answer(self, endpoint: StageEndpoint | RogueStage, effect: Run, started_us: Micros) -> None:
        process, request, position = self._process, effect.request, effect.position
        rows = split_rows(bytes(effect.payload), self._row_bytes)
        out = self._memories[request].run(position, rows, self._row_bytes)
        payload = memoryview(b"".join(out[-effect.rows_out_max :]))
        process.world.checks.answered(process, request)
        process.act(
            f"output {request.hex()[:8]} {position}",
            lambda: endpoint.output(
                request, position, payload, started_us=started_us, finished_us=process.now, now=process.now
            ),
        )

    def _failed(self, effect: Run, reason: str) -> None:
        process, request, position = self._process, effect.request, effect.position
        endpoint = process.stage_endpoint
        process.world.checks.answered(process, request)
        process.act(
            f"failed {request.hex()[:8]} {position}",
            lambda: endpoint.failed(request, position, reason, now=process.now),
        )
