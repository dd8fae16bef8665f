"""A stage's executor: one step at a time, in the order of asking, with everything that can go wrong."""

from collections import deque
from typing import TYPE_CHECKING

from odsi_proto.statemachine.effects import Release, Reserve, Run
from odsi_proto.statemachine.stage import StageEndpoint
from odsi_proto.testing.rogue import RogueStage
from odsi_proto.testing.simulation.model import StageMemory, split_rows
from odsi_proto.units import Micros, RequestId
from odsi_proto.wire.tensor import ActivationCodec, ActivationLayout

if TYPE_CHECKING:
    from odsi_proto.testing.simulation.stage_process import StageProcess

_F32 = ActivationCodec.F32


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
        self._queue: deque[Run] = deque()
        self._unanswered: list[Run] = []
        self._is_busy = False

    @property
    def held(self) -> tuple[RequestId, ...]:
        """Requests whose state is set aside."""
        return tuple(self._memories)

    def reserve(self, effect: Reserve) -> None:
        """Set state aside; the answer never comes inside the call that asked."""
        self._process.later(self.reserve_late_us, self._reserved, effect)

    def run(self, effect: Run) -> None:
        """Run a step after those asked for before."""
        self._queue.append(effect)
        if not self._is_busy:
            self._begin()

    def release(self, effect: Release) -> None:
        """Give state back; steps of the request that wait will fail."""
        self._memories.pop(effect.request, None)

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
        effect = self._queue.popleft()
        self._is_busy = True
        process = self._process
        compute_us = process.world.options.compute_us * self.times_slower
        if compute_us:
            compute_us += process.random.randint(0, compute_us // 4)
        process.later(compute_us, self._ran, effect, process.now)

    def _ran(self, effect: Run, started_us: Micros) -> None:
        process = self._process
        self._is_busy = False
        if self.is_silent:
            self._unanswered.append(effect)
        elif effect.request not in self._memories:
            self._failed(effect, "its state was given back")
        elif self.failures:
            self.failures -= 1
            self._failed(effect, "out of memory")
        else:
            self._answer(process.stage_endpoint, effect, started_us)
        if self._queue and not self._is_busy and process.executor is self:
            self._begin()

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
