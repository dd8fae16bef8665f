"""The rules that every run is checked against, whatever goes wrong in it."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from odsi_proto.statemachine.effects import (
    Close,
    Effect,
    Release,
    Reserve,
    Run,
    SendControl,
    SendStep,
)
from odsi_proto.testing.simulation.checker import Checker, Hook, life
from odsi_proto.testing.simulation.checkers_end import Bounded, Causes, Farewell, Invariants, NothingHeld
from odsi_proto.testing.simulation.checkers_load import CreditKept, NamesWhere, TakesWhatItCan
from odsi_proto.testing.simulation.checkers_time import BudgetsNeverGrow, NothingLate, TimeAtStage
from odsi_proto.testing.simulation.model import expected_tokens
from odsi_proto.wire.codepoints import ErrorCode, FrameType
from odsi_proto.wire.frames import AttachedFrame, OpenFrame, decode_frame
from odsi_proto.wire.tensor import ActivationCodec, ActivationLayout
from odsi_proto.wire.varint import Cursor

if TYPE_CHECKING:
    from odsi_proto.testing.simulation.client_process import ClientProcess, Request
    from odsi_proto.testing.simulation.process import Process
    from odsi_proto.testing.simulation.world import World

FRAME_BYTES_MAX = 1 << 20


class OneEffect(Checker):
    """A step runs at most once at one incarnation of a node: (request, lineage, position) is its key."""

    name = "one-effect"
    specs = ("STEP-001", "STEP-012")

    def __init__(self, world: "World") -> None:
        super().__init__(world)
        self._ran: set[tuple[object, ...]] = set()

    def hooks(self) -> Mapping[type[Effect], Hook]:
        return {Run: self._run}

    def _run(self, process: "Process", effect: Run) -> None:
        key = (life(process), effect.request, getattr(effect, "lineage", 0), effect.position)
        if key in self._ran:
            self.fail(process, f"position {effect.position} of {effect.request.hex()[:8]} runs a second time")
        self._ran.add(key)


class Order(Checker):
    """The steps of a request are handed to the executor in order of position, without gap or overlap."""

    name = "order"
    specs = ("STEP-034", "STEP-005")

    def __init__(self, world: "World") -> None:
        super().__init__(world)
        self._ends: dict[tuple[object, ...], int] = {}

    def hooks(self) -> Mapping[type[Effect], Hook]:
        return {Run: self._run}

    def _run(self, process: "Process", effect: Run) -> None:
        key = (life(process), effect.request)
        expected = self._ends.get(key, 0)
        if effect.position != expected:
            what = f"position {effect.position} of {effect.request.hex()[:8]} runs where {expected} is next"
            self.fail(process, what)
        self._ends[key] = effect.position + effect.count


class Coherence(Checker):
    """The tokens of a request are those that its prompt yields alone on a path where nothing goes wrong."""

    name = "coherence"
    specs = ("STEP-004", "STEP-013", "STEP-017")

    def __init__(self, world: "World") -> None:
        super().__init__(world)
        self._expected: dict[str, tuple[int, ...]] = {}

    def opened(self, process: "ClientProcess", request: "Request") -> None:
        options = self.world.options
        row_bytes = ActivationLayout(codec=ActivationCodec.F32, width=options.row_width).row_bytes
        self._expected[request.name] = expected_tokens(
            request.prompt, options.tokens, options.stages, row_bytes
        )

    def ended(self, process: "ClientProcess", request: "Request", code: int | None) -> None:
        if self.world.has_rogue_stage:
            return  # it may compute what it likes
        expected = self._expected.get(request.name, ())
        if tuple(request.tokens) != expected[: len(request.tokens)]:
            self.fail(process, f"{request.name} got {request.tokens}, expected {expected}")
        elif code is None and len(request.tokens) != len(expected):
            self.fail(process, f"{request.name} is complete with {len(request.tokens)} tokens")


class EndsOnce(Checker):
    """A request ends exactly once for its caller."""

    name = "ends-once"
    specs = ("REQ-028",)

    def ended(self, process: "ClientProcess", request: "Request", code: int | None) -> None:
        if request.is_ended:
            self.fail(process, f"{request.name} ends a second time")


class ReleasedOnce(Checker):
    """State that was set aside is given back exactly once, and nothing else is."""

    name = "released-once"
    specs = ("REQ-001", "REQ-002", "STEP-015")

    def __init__(self, world: "World") -> None:
        super().__init__(world)
        self._asked: dict[tuple[tuple[str, int], bytes], None] = {}
        self._held: dict[tuple[tuple[str, int], bytes], None] = {}

    def hooks(self) -> Mapping[type[Effect], Hook]:
        return {Reserve: self._reserve, Release: self._release}

    def reserve_answered(self, process: "Process", request: bytes, *, fits: bool) -> None:
        key = (life(process), request)
        self._asked.pop(key, None)
        if fits:
            self._held[key] = None

    def finished(self) -> None:
        for owner, request in self._held:
            process = self.world.processes[owner[0]]
            if owner == life(process) and process.is_up:
                self.fail(process, f"the state of {request.hex()[:8]} is never given back")

    def _reserve(self, process: "Process", effect: Reserve) -> None:
        key = (life(process), effect.request)
        if key in self._asked or key in self._held:
            self.fail(process, f"state for {effect.request.hex()[:8]} is asked for twice")
        self._asked[key] = None

    def _release(self, process: "Process", effect: Release) -> None:
        key = (life(process), effect.request)
        if key in self._asked:
            return  # the driver may have it by now or not; the answer brings another Release
        if key not in self._held:
            self.fail(process, f"state of {effect.request.hex()[:8]} is given back that is not held")
        self._held.pop(key, None)


class HonestPeace(Checker):
    """No honest node closes a connection to another for breaking a rule, whatever the network does."""

    name = "honest-peace"
    specs = ("SESS-009", "REQ-005")

    LEGAL = frozenset({ErrorCode.NO_ERROR, ErrorCode.GOING_AWAY, ErrorCode.HANDSHAKE_TIMEOUT})
    """What one leaves for without anybody being at fault."""

    def hooks(self) -> Mapping[type[Effect], Hook]:
        return {Close: self._close}

    def _close(self, process: "Process", effect: Close) -> None:
        port = process.ports.get(effect.connection)
        if port is not None and port.peer.process.is_honest and effect.code not in self.LEGAL:
            peer = port.peer.process.name
            self.fail(process, f"closes to {peer}, {ErrorCode.name_of(effect.code)}: {effect.reason}")


class NothingAfterClose(Checker):
    """An endpoint asks for nothing on a connection that it closed or was told is gone."""

    name = "nothing-after-close"
    specs = ("SESS-008",)

    def called(self, process: "Process", effects: tuple[Effect, ...]) -> None:
        closed: list[int] = []
        for effect in effects:
            match effect:
                case SendControl() | SendStep() | Close():
                    connection = effect.connection
                    if connection not in process.ports or connection in closed:
                        what = f"{type(effect).__name__} on connection {connection}, which is gone"
                        self.fail(process, what)
                    if isinstance(effect, Close):
                        closed.append(connection)
                case _:
                    pass


class FreshHandles(Checker):
    """Each handle that a sender chooses on a connection is above all that it chose there before."""

    name = "fresh-handles"
    specs = ("REQ-031", "REQ-013")

    def __init__(self, world: "World") -> None:
        super().__init__(world)
        self._last: dict[int, int] = {}

    def hooks(self) -> Mapping[type[Effect], Hook]:
        return {SendControl: self._sent}

    def _sent(self, process: "Process", effect: SendControl) -> None:
        if effect.data[0] not in {FrameType.OPEN, FrameType.ATTACHED} or len(effect.data) < 3:
            return
        frame: Any = decode_frame(Cursor(effect.data), payload_bytes_max=FRAME_BYTES_MAX)
        if isinstance(frame, OpenFrame | AttachedFrame):
            if frame.handle <= self._last.get(effect.connection, -1):
                self.fail(process, f"handle {frame.handle} again on connection {effect.connection}")
            self._last[effect.connection] = frame.handle


CHECKERS: tuple[type[Checker], ...] = (
    OneEffect,
    Order,
    Coherence,
    EndsOnce,
    ReleasedOnce,
    HonestPeace,
    NothingAfterClose,
    FreshHandles,
    Farewell,
    BudgetsNeverGrow,
    TimeAtStage,
    NothingLate,
    CreditKept,
    TakesWhatItCan,
    NamesWhere,
    Bounded,
    Invariants,
    Causes,
    NothingHeld,
)
"""Every one of them watches every run."""
