"""What drawn examples found and nobody has mended yet: each is expected to fail, and not to stay here.

Whoever mends one takes away its mark, and the place that spares the machine or the run that met it.
"""

from functools import partial

import pytest
from properties.scripted import WIDTH, check_invariants
from properties.test_bytes import REQUEST, header_at, serve

from odsi_proto.errors import LocalProtocolError
from odsi_proto.limits import Limits


@pytest.mark.xfail(strict=True, reason="a parked step that the state has passed stays parked")
def test_a_parked_step_is_not_passed_by_the_state() -> None:
    """A longer step covers it; it is refused as MISSING_STEP later, though nothing is missing."""
    served = serve(Limits())
    served.upstream.step(header_at(2, 1), bytes(4 * WIDTH))
    served.upstream.step(header_at(0, 4), bytes(4 * WIDTH * 4))
    check_invariants(served.stage)


@pytest.mark.xfail(strict=True, raises=AssertionError, reason="an AssertionError, not a LocalProtocolError")
@pytest.mark.parametrize("fits", [True, False])
def test_a_reservation_that_was_not_asked_for_is_the_callers_fault(fits: bool) -> None:
    served = serve(Limits())
    stage, now = served.stage, served.bench.now
    answer = partial(stage.reserved, REQUEST) if fits else partial(stage.reserve_failed, REQUEST, "full")
    with pytest.raises(LocalProtocolError):
        answer(now=now)
