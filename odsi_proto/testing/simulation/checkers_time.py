"""Rules about time: budgets only shrink, and what is late does not happen."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from odsi_proto.statemachine.effects import Effect, RowsArrived, Run, SendStep
from odsi_proto.testing.simulation.checker import Checker, Hook, life
from odsi_proto.testing.simulation.faults import ROGUE_NODE
from odsi_proto.wire.codepoints import LateAction
from odsi_proto.wire.step import StepHeader
from odsi_proto.wire.varint import Cursor

if TYPE_CHECKING:
    from odsi_proto.testing.simulation.client_process import ClientProcess, Request
    from odsi_proto.testing.simulation.process import Process
    from odsi_proto.testing.simulation.world import World

WHOLE_BYTES = 1 << 20
"""A window beyond every step: a step that is not cut comes in one piece."""


class BudgetsNeverGrow(Checker):
    """What is left of a budget shrinks along the path by at least the time that the sender had the step.

    A stage may give back what its predecessor took off for the way, above the least round trip that
    the stage itself has measured, and no more; and nowhere is there more left than the largest budget
    that the step can be under, whatever its sender says.
    """

    name = "budgets-never-grow"
    specs = ("TIME-008", "TIME-011", "TIME-014")

    def __init__(self, world: "World") -> None:
        super().__init__(world)
        self._sent: dict[tuple[bytes, str], tuple[int, int]] = {}
        """By the tag that a step leaves and its sender: what was left and the estimate of the way."""
        self._given: dict[str, int] = {}
        """By client: the budget of the step that it is about to send."""
        self._before = {
            name: names[index - 1] if index else ""
            for names in (world.options.stage_names,)
            for index, name in enumerate(names)
        }

    def hooks(self) -> Mapping[type[Effect], Hook]:
        return {SendStep: self._step, Run: self._run}

    def _largest_us(self, position: int) -> int:
        options = self.world.options
        largest_us = max(options.first_token_us, options.per_token_us) if position else options.first_token_us
        return min(largest_us, options.total_us) if options.total_us else largest_us

    def _run(self, process: "Process", effect: Run) -> None:
        largest_us = self._largest_us(effect.position)
        if effect.remaining_us > largest_us:
            left = f"{effect.remaining_us} us left, the largest budget is {largest_us}"
            self.fail(process, f"step {effect.position} has {left}")
        if effect.slack_us > effect.remaining_us:
            self.fail(process, f"step {effect.position} has more to spare than is left")

    def _step(self, process: "Process", effect: SendStep) -> None:
        header = StepHeader.decode(Cursor(effect.header, 1))
        key = (header.tag_after, process.name)
        remaining_us, owd_us = self._sent.get(key, (0, 0))
        self._sent[key] = (max(header.remaining_us, remaining_us), max(header.owd_us, owd_us))
        if process.name not in self._before:
            self._client_step(process, header)
            return
        senders = (
            [self._before[process.name]] if self._before[process.name] else self.world.options.client_names
        )
        allowed = [
            remaining_us + max(0, owd_us - process.rtts_us.get(sender, owd_us))
            for sender in senders
            for remaining_us, owd_us in (self._sent.get((header.tag_after, sender), (-1, 0)),)
            if remaining_us >= 0
        ]
        if not allowed and not any(name in self.world.deviations for name in (*senders, ROGUE_NODE)):
            self.fail(process, f"step {header.position}+{header.count} was sent by nobody before")
        elif allowed and header.remaining_us > max(allowed):
            what = f"sends step {header.position} with {header.remaining_us} us left, {max(allowed)} came"
            self.fail(process, what)

    def stepped(self, process: "ClientProcess", request: "Request", position: int, budget_us: int) -> None:
        self._given[process.name] = budget_us

    def _client_step(self, process: "Process", header: StepHeader) -> None:
        given_us = self._given[process.name]
        if header.remaining_us > max(0, given_us - header.owd_us):
            self.fail(
                process, f"sends step {header.position} with {header.remaining_us} us left of {given_us}"
            )


class TimeAtStage(Checker):
    """The time that a stage had a step is taken off its budget."""

    name = "time-at-stage"
    specs = ("TIME-011",)

    def __init__(self, world: "World") -> None:
        super().__init__(world)
        self._waiting: dict[tuple[str, int], list[tuple[int, int, int]]] = {}
        """By process: position, what was left, and when it was asked to run, by its own clock."""

    def hooks(self) -> Mapping[type[Effect], Hook]:
        return {Run: self._run, SendStep: self._step}

    def _run(self, process: "Process", effect: Run) -> None:
        taken = (effect.position, effect.remaining_us, process.now)
        self._waiting.setdefault(life(process), []).append(taken)

    def _step(self, process: "Process", effect: SendStep) -> None:
        asked = self._waiting.get(life(process))
        if not asked:
            return
        header = StepHeader.decode(Cursor(effect.header, 1))
        # Requests are not told apart: of all steps at this position, one must account for it.
        allowed = [left - (process.now - at) for position, left, at in asked if position == header.position]
        if allowed and header.remaining_us > max(0, *allowed):
            what = f"sends step {header.position} with {header.remaining_us} us left, {max(allowed)} at most"
            self.fail(process, what)


class NothingLate(Checker):
    """What is late does not happen.

    Under late action FAIL or REROUTE nothing runs whose budget is used up, and the executor is told that
    it may not; no step is taken once its request is
    past its end and the skew of clocks; no rows reach the caller after the client's own timer.
    """

    name = "nothing-late"
    specs = ("STEP-008", "TIME-020", "TIME-021", "REQ-017", "REQ-027")

    def __init__(self, world: "World") -> None:
        super().__init__(world)
        self._expiry_s: dict[bytes, int] = {}
        self._due: dict[tuple[str, bytes, int], int] = {}
        """By client, request and position: when its timer is due, by the client's clock."""
        options = world.options
        windows = min(options.window_bytes, options.stream_window_bytes)
        self._is_whole = options.chunking == "whole" and windows >= WHOLE_BYTES

    def hooks(self) -> Mapping[type[Effect], Hook]:
        return {RowsArrived: self._rows}

    def opened(self, process: "ClientProcess", request: "Request") -> None:
        self._expiry_s[request.id] = process.unix_s + self.world.options.valid_s

    def stepped(self, process: "ClientProcess", request: "Request", position: int, budget_us: int) -> None:
        self._due[process.name, request.id, position] = process.now + budget_us

    def called(self, process: "Process", effects: tuple[Effect, ...]) -> None:
        runs = [effect for effect in effects if isinstance(effect, Run)]
        if not runs:
            return
        is_droppable = self.world.options.late_action != LateAction.CONTINUE
        for run in runs:
            if is_droppable and not run.remaining_us:
                self.fail(process, f"position {run.position} runs with nothing left of its budget")
            if run.is_droppable is not is_droppable:
                self.fail(process, f"position {run.position} may be dropped: {run.is_droppable}")
        if process.is_reading and self._is_whole:
            # Later ones of this call came before and were parked.
            end_s = self._expiry_s.get(runs[0].request, process.unix_s) + self.world.limits.clock_skew_s
            if process.unix_s > end_s:
                what = f"position {runs[0].position} is taken {process.unix_s - end_s} s after its request"
                self.fail(process, what)

    def _rows(self, process: "Process", effect: RowsArrived) -> None:
        due = self._due.get((process.name, effect.request, effect.position))
        if due is None:
            self.fail(process, f"rows for position {effect.position}, which was never sent")
            return
        late_us = self.world.options.lateness_us
        overdue_us = self.world.heap.now_us - process.clock.when(due)
        was_there = self.world.heap.now_us - process.disturbed_us > overdue_us
        if overdue_us > late_us and was_there:
            self.fail(process, f"rows for position {effect.position} {overdue_us} us after their time")
