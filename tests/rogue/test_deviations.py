"""Every deviation, by everybody who can do it: what it owes happens, and nobody else is harmed."""

import pytest
from rogue.judge import judge
from rogue.scene import play

from odsi_proto.testing.rogue import DEVIATIONS, Deviation, Part, Seat

# Known faults of ours. Each fails here while it lasts, and must leave this list with it.
ROWS_OF_ANOTHER = (
    "a client closes on the honest last stage for rows whose header a stage between has changed"
    " (STEP-017 against REQ-063)"
)
STALE_STATUS = (
    "a stage that passes a REFUSE of STALE on sends its waiting status with it, and leaves the timer of"
    " the records that are gone (the invariant that waits are timed)"
)
OVERRUN = (
    "a step that is parked where the state has gone past is kept until it is overdue, and refused as if a"
    " step were missing (STEP-002 classifies it when the state reaches its position: it never does)"
)


def known_fault(deviation: Deviation, seat: Seat) -> str | None:
    """Why this case can not pass yet."""
    if deviation.name in {"step-to-a-history-of-its-own", "step-cut-in-two"}:
        return ROWS_OF_ANOTHER
    if deviation.name == "step-parked-and-overrun":
        return OVERRUN
    if deviation.name == "refuse-as-stale" and seat is not Seat.FIRST:
        return STALE_STATUS
    return None


def _case(deviation: Deviation, part: Part, seat: Seat) -> object:
    who = "the-client" if part is Part.CLIENT else f"the-{seat.value}-stage"
    fault = known_fault(deviation, seat)
    faults = () if fault is None else (pytest.mark.xfail(reason=fault, strict=True),)
    marks = (pytest.mark.spec(*deviation.specs), *faults)
    return pytest.param(deviation, part, seat, id=f"{deviation.name}-by-{who}", marks=marks)


CASES = [
    _case(deviation, part, seat)
    for deviation in DEVIATIONS.values()
    for part in deviation.parts
    for seat in (deviation.seats if part is Part.STAGE else (Seat.FIRST,))
]


@pytest.mark.parametrize(("deviation", "part", "seat"), CASES)
def test_a_deviation_meets_what_it_should_and_harms_nobody_else(
    deviation: Deviation, part: Part, seat: Seat
) -> None:
    assert judge(play(deviation, part, seat)) == []
