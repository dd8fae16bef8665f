"""Every deviation, by everybody who can do it: what it owes happens, and nobody else is harmed."""

import pytest
from rogue.judge import judge
from rogue.scene import play

from odsi_proto.testing.rogue import DEVIATIONS, Deviation, Part, Seat


def _case(deviation: Deviation, part: Part, seat: Seat) -> object:
    who = "the-client" if part is Part.CLIENT else f"the-{seat.value}-stage"
    marks = pytest.mark.spec(*deviation.specs)
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
