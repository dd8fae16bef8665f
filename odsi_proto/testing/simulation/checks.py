"""Runs the checkers beside the nodes: they see every call and its effects, and change nothing."""

import traceback
from typing import TYPE_CHECKING, Any

from odsi_proto.statemachine.budget import ExecutorLoad
from odsi_proto.statemachine.effects import Close, Effect, RequestFailed, Trace
from odsi_proto.testing.simulation.checker import Checker, Hook
from odsi_proto.testing.simulation.checkers import CHECKERS
from odsi_proto.testing.simulation.result import CheckFailure, Outcome
from odsi_proto.wire.codepoints import ErrorCode

if TYPE_CHECKING:
    from odsi_proto.testing.simulation.client_process import ClientProcess, Request
    from odsi_proto.testing.simulation.process import Process
    from odsi_proto.testing.simulation.world import World


class Checks:
    """All checkers of one run; the first failure is kept."""

    def __init__(self, world: "World") -> None:
        self.failure: CheckFailure | None = None
        self._world = world
        self._checkers = [kind(world) for kind in CHECKERS]
        self._callers = [c for c in self._checkers if type(c).called is not Checker.called]
        self._watchers = [c for c in self._checkers if type(c).after_call is not Checker.after_call]
        self._hooks: dict[type[Any], list[Hook]] = {}
        for checker in self._checkers:
            for kind, hook in checker.hooks().items():
                self._hooks.setdefault(kind, []).append(hook)

    def report(self, check: str, specs: tuple[str, ...], node: str, text: str) -> None:
        """A rule is broken; the run ends with the event under way."""
        if self.failure is None:
            at_us, line = self._world.heap.now_us, " ".join(text.split())
            self.failure = CheckFailure(check=check, specs=specs, at_us=at_us, node=node, text=line)
            self._world.log.note(at_us, node or "run", "check", f"{check}: {line}")

    def bug(self, process: "Process", what: str, error: Exception) -> None:
        """A call raised: whatever peers and networks do, our own code must not."""
        if not process.is_honest:
            return
        frame = traceback.extract_tb(error.__traceback__)[-1]
        place = f"{frame.filename.rsplit('/', 1)[-1]}:{frame.lineno}"
        self.report("bug", (), process.name, f"{what}: {type(error).__name__} at {place}: {error}")

    def called(self, process: "Process", effects: tuple[Any, ...]) -> None:
        """A call has these effects; they are not carried out yet."""
        if not process.is_honest:
            return
        for effect in effects:
            self._count_code(effect)
            for hook in self._hooks.get(type(effect), ()):
                hook(process, effect)
        for checker in self._callers:
            checker.called(process, effects)

    def after_call(self, process: "Process") -> None:
        """A call and its effects are over."""
        if process.is_honest:
            for checker in self._watchers:
                checker.after_call(process)

    def reserve_answered(self, process: "Process", request: bytes, *, fits: bool) -> None:
        """The executor answers a reservation."""
        for checker in self._checkers if process.is_honest else ():
            checker.reserve_answered(process, request, fits=fits)

    def measured(self, process: "Process", load: ExecutorLoad) -> None:
        """The executor says what it takes from here on."""
        for checker in self._checkers if process.is_honest else ():
            checker.measured(process, load)

    def answered(self, process: "Process", request: bytes) -> None:
        """The executor answers a step."""
        for checker in self._checkers if process.is_honest else ():
            checker.answered(process, request)

    def stepped(self, process: "ClientProcess", request: "Request", position: int, budget_us: int) -> None:
        """A client is about to send a step."""
        for checker in self._checkers if process.is_honest else ():
            checker.stepped(process, request, position, budget_us)

    def opened(self, process: "ClientProcess", request: "Request") -> None:
        """A client is about to open a request."""
        for checker in self._checkers if process.is_honest else ():
            checker.opened(process, request)

    def ended(
        self,
        process: "ClientProcess",
        request: "Request",
        *,
        code: int | None,
        stage: int | None,
        reason: str,
    ) -> None:
        """A request has ended for its caller."""
        world = self._world
        if not process.is_honest:
            return
        for checker in self._checkers:
            checker.ended(process, request, code)
        outcome = Outcome(
            request=request.name,
            tokens=tuple(request.tokens),
            code="" if code is None else ErrorCode.name_of(code),
            stage=stage,
            reason=reason,
            ended_us=world.heap.now_us,
        )
        world.outcomes.append(outcome)
        if outcome.code:
            world.coverage.error_codes.add(outcome.code)
        brief = f"{request.name} ended, {outcome.code or 'complete'}, {len(outcome.tokens)} tokens"
        world.log.note(world.heap.now_us, process.name, "call", brief)

    def finished(self) -> None:
        """Everything has ended."""
        for checker in self._checkers:
            checker.finished()

    def _count_code(self, effect: Effect) -> None:
        codes = self._world.coverage.error_codes
        match effect:
            case Close() | RequestFailed():
                codes.add(ErrorCode.name_of(effect.code))
            case Trace() if effect.event == "refused":
                codes.add(str(effect.fields["code"]))
            case _:
                pass
