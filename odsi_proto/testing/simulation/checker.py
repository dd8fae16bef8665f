"""What a checker is: a rule of the specification, watched from outside the endpoints."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias

from odsi_proto.statemachine.budget import ExecutorLoad
from odsi_proto.statemachine.effects import Effect

if TYPE_CHECKING:
    from odsi_proto.testing.simulation.client_process import ClientProcess, Request
    from odsi_proto.testing.simulation.process import Process
    from odsi_proto.testing.simulation.world import World

Hook: TypeAlias = "Callable[[Process, Any], None]"
"""Sees one effect of one process, before it is carried out."""


class Checker:
    """One rule. A subclass hooks into the effects it needs; it changes nothing but itself."""

    name: ClassVar[str]
    """Kebab-case; what a failure is known by."""
    specs: ClassVar[tuple[str, ...]]
    """Requirements that the rule comes from."""

    def __init__(self, world: "World") -> None:
        self.world = world

    def hooks(self) -> Mapping[type[Effect], Hook]:
        """By kind of effect, what looks at it."""
        return {}

    def called(self, process: "Process", effects: tuple[Effect, ...]) -> None:
        """A call has these effects; they are not carried out yet."""

    def after_call(self, process: "Process") -> None:
        """A call is over; its effects, if any, are carried out."""

    def reserve_answered(self, process: "Process", request: bytes, *, fits: bool) -> None:
        """The executor answered a reservation."""

    def measured(self, process: "Process", load: ExecutorLoad) -> None:
        """The executor says what it takes from here on."""

    def answered(self, process: "Process", request: bytes) -> None:
        """The executor answers a step."""

    def stepped(self, process: "ClientProcess", request: "Request", position: int, budget_us: int) -> None:
        """A client is about to send a step."""

    def opened(self, process: "ClientProcess", request: "Request") -> None:
        """A client is about to open a request."""

    def ended(self, process: "ClientProcess", request: "Request", code: int | None) -> None:
        """A request has ended for its caller; ``code`` None: with its tokens."""

    def finished(self) -> None:
        """Everything has ended and everybody has had time to hear of it."""

    def fail(self, process: "Process | None", text: str) -> None:
        """The rule is broken."""
        self.world.checks.report(self.name, self.specs, "" if process is None else process.name, text)


def life(process: "Process") -> tuple[str, int]:
    """Names one incarnation of a process."""
    return process.name, process.incarnation
