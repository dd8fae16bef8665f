"""Which request an event is about: told from the log alone, for steps that name only handles."""

from collections import Counter

import pytest

from odsi_proto.cli.sim_requests import Requests
from odsi_proto.testing.simulation import LogEvent, Scenario, SimOptions, run

STAGES, TOKENS, CHUNKS = 3, 5, 2


@pytest.mark.parametrize("gap_us", [0, 3_000])
def test_every_step_of_requests_that_run_together_is_told_apart(gap_us: int) -> None:
    options = SimOptions(
        stages=STAGES,
        tokens=TOKENS,
        prompt_positions=2 * CHUNKS,
        chunk_positions=2,
        clients=2,
        requests=2,
        gap_us=gap_us,
    )
    events: list[LogEvent] = []
    result = run(Scenario(seed=3, options=options, plan=()), observe=events.append)
    request_of = Requests()
    told = [(event, request_of(event)) for event in events]
    names = [outcome.request for outcome in result.outcomes]
    assert not any(outcome.code for outcome in result.outcomes)
    for kind in ("send", "receive"):
        steps = Counter(
            request for event, request in told if event.kind == kind and event.text.startswith("STEP ")
        )
        assert steps == dict.fromkeys(names, (STAGES + 1) * (CHUNKS + TOKENS - 1))
    statuses = {request for event, request in told if event.text.startswith("STATUS ")}
    assert statuses <= set(names)


def test_what_is_about_no_request_is_not_given_one() -> None:
    request_of = Requests()
    assert request_of(LogEvent(at_us=0, node="client-0", kind="call", text="open client-0/0 3b1a5738"))
    assert request_of(LogEvent(at_us=1, node="client-0", kind="effect", text="anything")) == "client-0/0"
    assert not request_of(LogEvent(at_us=1, node="client-0", kind="fault", text="crash client-0"))
    assert not request_of(LogEvent(at_us=1, node="stage-0", kind="effect", text="anything"))
    assert not request_of(LogEvent(at_us=2, node="client-0", kind="call", text="rtt_measured 1 40000"))
    assert not request_of(LogEvent(at_us=2, node="client-0", kind="effect", text="anything"))
