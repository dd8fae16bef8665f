"""Rules about what nodes can take: credit is kept, what can not be done is refused, and where is said."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from odsi_proto.statemachine.budget import CREDIT_STEPS_INITIAL, ExecutorLoad
from odsi_proto.statemachine.effects import (
    Effect,
    RequestFailed,
    Reserve,
    RowsArrived,
    Run,
    SendControl,
    SendStep,
)
from odsi_proto.testing.simulation.checker import Checker, Hook, life
from odsi_proto.wire.codepoints import ErrorCode, FrameType
from odsi_proto.wire.frames import RefuseFrame, StatusFrame, decode_frame
from odsi_proto.wire.step import StepHeader
from odsi_proto.wire.varint import Cursor

if TYPE_CHECKING:
    from odsi_proto.testing.simulation.client_process import ClientProcess, Request
    from odsi_proto.testing.simulation.process import Process
    from odsi_proto.testing.simulation.world import World

FRAME_BYTES_MAX = 1 << 20


class CreditKept(Checker):
    """A client with steps under way sends no further one than its first stage ever gave credit for."""

    name = "credit-kept"
    specs = ("TIME-041", "TIME-042")

    def __init__(self, world: "World") -> None:
        super().__init__(world)
        self._granted: dict[tuple[int, int], int] = {}
        """By the client's connection and handle: the most steps that it was ever told of."""
        self._sent: dict[tuple[int, int], int] = {}
        self._waiting: dict[bytes, set[int]] = {}
        """By request: positions of steps without an answer."""
        self._stepping: tuple[bytes, int] = b"", 0

    def hooks(self) -> Mapping[type[Effect], Hook]:
        return {SendControl: self._frame, SendStep: self._step, RowsArrived: self._rows}

    def stepped(self, process: "ClientProcess", request: "Request", position: int, budget_us: int) -> None:
        self._stepping = request.id, position

    def _frame(self, process: "Process", effect: SendControl) -> None:
        port = process.ports.get(effect.connection)
        if effect.data[0] != FrameType.STATUS or port is None or len(effect.data) < 3:
            return
        frame = decode_frame(Cursor(effect.data), payload_bytes_max=FRAME_BYTES_MAX)
        if isinstance(frame, StatusFrame):
            key = (port.peer.connection, frame.handle)
            self._granted[key] = max(self._granted.get(key, 0), frame.credit_steps)

    def _step(self, process: "Process", effect: SendStep) -> None:
        if process.name not in self.world.options.client_names or self.world.has_rogue_stage:
            return
        header = StepHeader.decode(Cursor(effect.header, 1))
        key = (effect.connection, header.handle)
        self._sent[key] = self._sent.get(key, 0) + 1
        request, position = self._stepping
        waiting = self._waiting.setdefault(request, set())
        granted = max(CREDIT_STEPS_INITIAL, self._granted.get(key, 0))
        if waiting and self._sent[key] > granted:
            what = f"sends step {self._sent[key]} with {len(waiting)} under way, of {granted} granted"
            self.fail(process, what)
        waiting.add(position)

    def _rows(self, process: "Process", effect: RowsArrived) -> None:
        waiting = self._waiting.setdefault(effect.request, set())
        waiting -= {position for position in waiting if position < effect.end}


class TakesWhatItCan(Checker):
    """A stage takes no step that its executor does not, and no OPEN whose budget it knows to be too small."""

    name = "takes-what-it-can"
    specs = ("TIME-030", "TIME-031")

    def __init__(self, world: "World") -> None:
        super().__init__(world)
        self._loads: dict[tuple[str, int], ExecutorLoad] = {}

    def measured(self, process: "Process", load: ExecutorLoad) -> None:
        self._loads[life(process)] = load

    def called(self, process: "Process", effects: tuple[Effect, ...]) -> None:
        load = self._loads.get(life(process))
        if load is None:
            return
        for effect in effects:
            match effect:
                case Run() if not load.credit_steps:
                    self.fail(process, f"takes step {effect.position}, its executor takes none")
                case Run():
                    return  # further ones of this call were parked: their turn has come whatever there is
                case Reserve():
                    self._opened(process, load)
                case _:
                    pass

    def _opened(self, process: "Process", load: ExecutorLoad) -> None:
        options = self.world.options
        budgets_us = [options.first_token_us, options.per_token_us]
        budgets_us += [us for us in (options.total_us, options.stage_budget_us) if us]
        if not load.credit_steps:
            self.fail(process, "takes an OPEN, its executor takes no step")
        if load.decode_us is not None and load.decode_us > min(budgets_us):
            what = f"takes an OPEN with a budget of {min(budgets_us)} us, a step takes {load.decode_us} us"
            self.fail(process, what)


class NamesWhere(Checker):
    """Who refuses, or waits in vain, says where: the stage, the position and with OVERLOADED the queue."""

    name = "names-where"
    specs = ("TIME-027", "TIME-031", "REQ-062")

    def __init__(self, world: "World") -> None:
        super().__init__(world)
        self._loads: dict[tuple[str, int], ExecutorLoad] = {}

    def hooks(self) -> Mapping[type[Effect], Hook]:
        return {SendControl: self._frame, RequestFailed: self._failed}

    def measured(self, process: "Process", load: ExecutorLoad) -> None:
        self._loads[life(process)] = load

    def _frame(self, process: "Process", effect: SendControl) -> None:
        names = self.world.options.stage_names
        if effect.data[0] != FrameType.REFUSE or process.name not in names or len(effect.data) < 3:
            return
        frame = decode_frame(Cursor(effect.data), payload_bytes_max=FRAME_BYTES_MAX)
        if not isinstance(frame, RefuseFrame) or self.world.deviations:
            return
        own = names.index(process.name)
        if not own <= frame.stage < len(names) or frame.position > self.world.options.positions_max:
            self.fail(process, f"refuses for stage {frame.stage} at position {frame.position}")
        load = self._loads.get(life(process))
        is_full = load is not None and load.queue_us > 0 and not load.credit_steps
        is_about_load = "takes no" in frame.reason or "would wait" in frame.reason
        if frame.stage == own and is_full and is_about_load and not frame.queue_us:
            self.fail(process, f"refuses step {frame.position} as OVERLOADED without a queue time")

    def _failed(self, process: "Process", effect: RequestFailed) -> None:
        if effect.code == ErrorCode.EXPIRED and effect.position is not None and effect.stage is None:
            self.fail(process, f"position {effect.position} has expired at no stage")
