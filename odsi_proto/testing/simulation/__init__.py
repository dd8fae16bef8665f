"""A deterministic simulator: the real endpoints on a hostile network in virtual time.

    result = run(Scenario.draw(seed))
    assert result.failure is None

Time is an integer that an event heap moves; one seed is split by name into independent streams; every
rule is checked from outside the endpoints. Same scenario and commit: same run, byte for byte.
"""

from odsi_proto.testing.simulation.faults import Fault, FaultKind, FaultPlan, draw_plan
from odsi_proto.testing.simulation.log import LogEvent
from odsi_proto.testing.simulation.minimise import minimise
from odsi_proto.testing.simulation.options import SimOptions
from odsi_proto.testing.simulation.result import CheckFailure, Coverage, Outcome, RunResult
from odsi_proto.testing.simulation.runner import run
from odsi_proto.testing.simulation.scenario import Scenario
from odsi_proto.testing.simulation.world import Endpoints

__all__ = [
    "CheckFailure",
    "Coverage",
    "Endpoints",
    "Fault",
    "FaultKind",
    "FaultPlan",
    "LogEvent",
    "Outcome",
    "RunResult",
    "Scenario",
    "SimOptions",
    "draw_plan",
    "minimise",
    "run",
]
