"""Endpoints for people who break things: one rogue stack, and a catalogue of documented deviations.

    deviation = DEVIATIONS["step-twice-with-other-rows"]
    rogue = make_rogue(deviation, ClientEndpoint(...), random.Random(7).randbytes)

A rogue has the mutators of the endpoint that it wraps and behaves like it up to the deviation's moment;
``deviation.expects`` says what a conforming peer owes then. ``rogue.acted`` says whether and when the
moment came. Several of its effects are a rogue's alone: see :data:`RogueEffect`.
"""

from odsi_proto.testing.rogue.catalogue import DEVIATIONS, describe, table
from odsi_proto.testing.rogue.endpoint import Rogue, RogueClient, RogueStage, make_rogue
from odsi_proto.testing.rogue.values import (
    Closes,
    ControlEnd,
    Deviation,
    Expectation,
    Fails,
    Ignores,
    Moment,
    Part,
    Refuses,
    RogueEffect,
    Seat,
    StreamBytes,
    StreamReset,
    Where,
)

__all__ = [
    "DEVIATIONS",
    "Closes",
    "ControlEnd",
    "Deviation",
    "Expectation",
    "Fails",
    "Ignores",
    "Moment",
    "Part",
    "Refuses",
    "Rogue",
    "RogueClient",
    "RogueEffect",
    "RogueStage",
    "Seat",
    "StreamBytes",
    "StreamReset",
    "Where",
    "describe",
    "make_rogue",
    "table",
]
