"""Runs a scenario: faults, then none, then everything must come to an end, then nothing may be left.

**Safety phase**: the plan's faults happen. Every checker watches. **Heal**: what lasts ends: cuts,
pauses, stragglers; crashed processes that were to come back do. **Liveness phase**: every request must
end, with its tokens or an explicit failure, within :func:`liveness_us`. **Settling**: everybody has
:func:`settle_us` to hear of it; then nobody may hold anything of any request.
"""

from collections.abc import Callable

from odsi_proto.testing.simulation.client_process import CONNECT_US_MAX, ClientProcess
from odsi_proto.testing.simulation.faults import FaultKind
from odsi_proto.testing.simulation.injector import Injector
from odsi_proto.testing.simulation.log import Log, LogEvent
from odsi_proto.testing.simulation.options import SimOptions
from odsi_proto.testing.simulation.result import RunResult
from odsi_proto.testing.simulation.scenario import Scenario
from odsi_proto.testing.simulation.world import Endpoints, World

EVENTS_MAX = 2_000_000
"""A run of more events does not end: two nodes that answer each other for ever."""
HONEST = Endpoints()


def run(
    scenario: Scenario,
    *,
    observe: Callable[[LogEvent], None] | None = None,
    endpoints: Endpoints = HONEST,
) -> RunResult:
    """Run a scenario to its end or to the first rule that is broken; ``observe`` sees every event.

    ``endpoints`` are what nodes are made of: a test of a checker puts something broken there.
    """
    log = Log(observe)
    world = World(scenario, log=log, endpoints=endpoints)
    _Run(world, scenario).to_the_end()
    return RunResult(
        failure=world.checks.failure,
        outcomes=tuple(sorted(world.outcomes, key=lambda outcome: outcome.request)),
        events_count=log.events_count,
        simulated_us=world.heap.now_us,
        digest=log.digest(),
        coverage=world.coverage.frozen(),
    )


def liveness_us(options: SimOptions) -> int:
    """How long after healing every request has ended, in virtual microseconds.

    The sum of what a request may wait for, one after the other: its turn, its connections, its path
    (``open_us_max``), the first token's budget, and for each further token its budget and the client's
    own thinking; a late timer for each; and clocks that are 5 % slow.
    """
    limits = options.limits
    wait_us = (options.requests - 1) * options.gap_us + CONNECT_US_MAX + limits.open_us_max
    token_us = options.per_token_us + options.think_us + options.lateness_us
    whole_us = wait_us + options.first_token_us + options.tokens * token_us + 4 * options.lateness_us
    return whole_us * 106 // 100


def settle_us(options: SimOptions) -> int:
    """How long after the last request everybody has heard of it, in virtual microseconds.

    Two ends notice a lost connection one after the other (``silence_us_max`` each), an ATTACH that
    nobody answers lasts ``open_us_max``, and news travels the path; steps with executors end.
    """
    limits = options.limits
    path_us = (options.stages + 2) * (options.delay_us + options.jitter_us + limits.status_delay_us)
    steps = options.prompt_positions + options.tokens
    executor_us = options.requests * options.clients * steps * options.compute_us * 5 // 4
    return (
        (2 * limits.silence_us_max + limits.open_us_max + 8 * path_us + executor_us + 1_000_000) * 106 // 100
    )


class _Run:
    def __init__(self, world: World, scenario: Scenario) -> None:
        self._world = world
        self._scenario = scenario
        self._events = 0
        self._requests = sum(len(client.requests) for client in world.clients)

    def to_the_end(self) -> None:
        """All phases, or up to the first failure."""
        world, options = self._world, self._scenario.options
        injector = Injector(world)
        injector.schedule(self._scenario.plan)
        self._phase("safety")
        for process in world.processes.values():
            process.start()
        for process in world.processes.values():
            if isinstance(process, ClientProcess):
                process.begin()
        self._until(options.safety_us)
        self._phase("heal")
        world.is_healed = True
        injector.heal()
        self._phase("liveness")
        bound_us = world.heap.now_us + liveness_us(options)
        self._until(bound_us)
        if not self._is_over() and not self._is_failed:
            left = [r.name for client in world.clients for r in client.requests if not r.is_ended]
            what = f"{', '.join(left)} has not ended {liveness_us(options)} us after everything healed"
            world.checks.report("liveness", ("REQ-027",), "", what)
        if self._is_failed:
            return
        world.is_over = True
        for process in world.processes.values():
            if not process.is_honest:
                process.crash()  # what it held for good would be held until idle limits end it
        self._phase("settle")
        slow_us = max((f.amount for f in world.plan if f.kind is FaultKind.RESERVE_SLOW), default=0)
        self._settle(world.heap.now_us + settle_us(options) + slow_us)
        if not self._is_failed:
            world.checks.finished()
            self._phase("end")

    @property
    def _is_failed(self) -> bool:
        return self._world.checks.failure is not None

    def _is_over(self) -> bool:
        return len(self._world.outcomes) >= self._requests

    def _until(self, until_us: int) -> None:
        """Let time pass until then, until all requests have ended, or until something fails."""
        heap = self._world.heap
        while not self._is_failed and not self._is_over():
            next_us = heap.next_us
            if next_us is None or next_us > until_us:
                heap.now_us = until_us
                return
            self._step()

    def _settle(self, until_us: int) -> None:
        heap = self._world.heap
        while not self._is_failed:
            next_us = heap.next_us
            if next_us is None or next_us > until_us:
                return
            self._step()

    def _step(self) -> None:
        self._world.heap.step()
        self._events += 1
        if self._events > EVENTS_MAX:
            self._world.checks.report("busy", (), "", f"no end after {EVENTS_MAX} events")

    def _phase(self, name: str) -> None:
        self._world.log.note(self._world.heap.now_us, "run", "phase", name)
