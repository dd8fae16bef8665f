"""Every check can fail: an endpoint that breaks its rule is found by it, where honest ones are not."""

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from simulation import broken

from odsi_proto.statemachine.client import ClientEndpoint
from odsi_proto.statemachine.stage import StageEndpoint
from odsi_proto.testing.simulation import (
    Endpoints,
    Fault,
    FaultKind,
    FaultPlan,
    Scenario,
    SimOptions,
    run,
    runner,
)
from odsi_proto.wire.codepoints import LateAction

PAGE = (Path(__file__).parents[2] / "docs" / "simulator.md").read_text()
DOCUMENTED = set(
    re.findall(r"^\| `([a-z-]+)` \|", PAGE.split("## Checks")[1].split("\n## ")[0], re.MULTILINE)
)
OF_SWARMS = {"process"}
"""Of the processes of a swarm, not of endpoints: tests/cli/test_sim_command.py has a seed that hangs."""

PLAIN = SimOptions(tokens=5)
SLOW = replace(PLAIN, compute_us=50_000, first_token_us=20_000, per_token_us=20_000)
"""No row is there in time."""
CROWDED = replace(PLAIN, prompt_positions=16, chunk_positions=1, compute_us=10_000)
FLOOD = replace(CROWDED, delay_us=50_000)
NO_ROOM = (Fault(at_us=0, kind=FaultKind.RESERVE_REFUSED, target="stage-1", for_us=900_000),)
CANCELLED = (Fault(at_us=60_000, kind=FaultKind.CANCEL_AT, target="client-0"),)


@dataclass(frozen=True, kw_only=True)
class Case:
    """An endpoint that breaks a rule, and the run in which it does."""

    check: str
    says: str
    endpoints: Endpoints
    options: SimOptions = PLAIN
    plan: FaultPlan = ()

    @property
    def scenario(self) -> Scenario:
        return Scenario(seed=1, options=self.options, plan=self.plan)


def stage(check: str, says: str, twist: Callable[..., Any] | type[StageEndpoint], **more: Any) -> Case:
    """A case of stages: of a class, or of effects that are changed on their way."""
    kind = twist if isinstance(twist, type) else broken.twisted(StageEndpoint, twist)
    return Case(check=check, says=says, endpoints=Endpoints(stage=kind), **more)


def client(check: str, says: str, twist: Callable[..., Any] | type[ClientEndpoint], **more: Any) -> Case:
    """A case of clients."""
    kind = twist if isinstance(twist, type) else broken.twisted(ClientEndpoint, twist)
    return Case(check=check, says=says, endpoints=Endpoints(client=kind), **more)


def limited(options: SimOptions, **limits: int) -> SimOptions:
    return replace(options, limits_set=tuple(limits.items()))


CASES = {
    "runs-a-step-twice": stage("one-effect", "runs a second time", broken.runs_twice),
    "skips-a-position": stage("order", "where 0 is next", broken.skips_a_position),
    "changes-rows": stage("coherence", "expected", broken.changes_rows),
    "fails-a-request-twice": client("ends-once", "a second time", broken.fails_twice, plan=NO_ROOM),
    "fails-for-no-reason": stage("causes", "COMPUTE_FAILED", broken.Failing),
    "runs-without-budget": stage(
        "nothing-late",
        "nothing left of its budget",
        broken.runs_without_budget,
        options=replace(PLAIN, late_action=LateAction.FAIL),
    ),
    "takes-steps-after-the-end": stage(
        "nothing-late",
        "after its request",
        broken.Roomy,
        options=limited(replace(PLAIN, compute_us=900_000, valid_s=1), clock_skew_s=1),
    ),
    "takes-rows-after-their-timer": client("nothing-late", "after their time", broken.Late, options=SLOW),
    "gives-budget": stage("budgets-never-grow", "us left", broken.gives_budget),
    "gives-budget-as-a-client": client("budgets-never-grow", "us left of", broken.gives_budget),
    "takes-more-than-the-largest-budget": stage("budgets-never-grow", "the largest budget", broken.Uncapped),
    "spares-more-than-is-left": stage("budgets-never-grow", "more to spare", broken.spares_more),
    "lets-everything-be-dropped": stage("nothing-late", "may be dropped", broken.may_be_dropped),
    "floods": client("credit-kept", "of 4 granted", broken.Flooding, options=FLOOD),
    "takes-steps-without-room": stage(
        "takes-what-it-can", "takes none", broken.Deaf, options=replace(CROWDED, queue_steps=1)
    ),
    "takes-an-open-without-room": stage(
        "takes-what-it-can",
        "takes an OPEN, its executor takes no step",
        broken.Deaf,
        options=replace(
            CROWDED, chunk_positions=16, compute_us=99_000, requests=2, gap_us=30_000, queue_steps=1
        ),
    ),
    "takes-an-impossible-budget": stage(
        "takes-what-it-can",
        "a step takes",
        broken.Deaf,
        options=replace(SLOW, prompt_positions=1, requests=2, gap_us=200_000),
    ),
    "blames-nobody": client("names-where", "at no stage", broken.blames_nobody, options=SLOW),
    "refuses-somewhere": stage("names-where", "at position 1000", broken.refuses_somewhere, plan=NO_ROOM),
    "refuses-without-a-queue-time": stage(
        "names-where",
        "without a queue time",
        broken.refuses_without_queue,
        options=replace(
            CROWDED, prompt_positions=1, compute_us=50_000, requests=6, gap_us=40_000, queue_steps=1
        ),
    ),
    "takes-no-time-off": stage("time-at-stage", "at most", broken.takes_no_time_off),
    "opens-too-many-requests": stage(
        "bounded",
        "requests are open",
        broken.Roomy,
        options=limited(replace(PLAIN, requests=2), requests_max=1),
    ),
    "takes-too-many-steps": stage(
        "bounded",
        "steps with the executor",
        broken.Roomy,
        options=limited(CROWDED, queued_steps_max=1, parked_steps_max=1),
    ),
    "keeps-state": stage("released-once", "never given back", broken.keeps_state),
    "gives-state-back-twice": stage("released-once", "that is not held", broken.gives_back_twice),
    "remembers-for-ever": stage(
        "nothing-held", "unanswered", broken.Remembering, options=CROWDED, plan=CANCELLED
    ),
    "chooses-a-handle-again": client(
        "fresh-handles", "handle 0 again", broken.chooses_one_handle, options=replace(PLAIN, requests=2)
    ),
    "refuses-twice": stage("farewell", "which it has refused", broken.refuses_twice, plan=NO_ROOM),
    "sends-what-it-abandons": stage("farewell", "which it has abandoned", broken.sends_what_it_abandons),
    "closes-twice": stage("nothing-after-close", "which is gone", broken.closes_twice),
    "closes-for-nothing": stage("honest-peace", "ORDER_VIOLATION", broken.closes_for_nothing),
    "waits-without-a-timer": stage("invariants", "waits are timed", broken.Patient),
    "tells-its-caller-nothing": client("liveness", "client-0/0", broken.tells_its_caller_nothing),
    "raises": stage("bug", "ZeroDivisionError", broken.Raising),
    "leaves-a-timer-due": client("busy", "no end", broken.Idle, options=SLOW),
}


@pytest.fixture(autouse=True)
def few_events(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two million take half a minute; no run here has ten thousand."""
    monkeypatch.setattr(runner, "EVENTS_MAX", 10_000)


@pytest.mark.parametrize("name", CASES)
def test_an_endpoint_that_breaks_a_rule_fails_the_check_of_that_rule(name: str) -> None:
    case = CASES[name]
    failure = run(case.scenario, endpoints=case.endpoints).failure
    assert failure is not None
    assert (failure.check, case.says in failure.text) == (case.check, True), failure


@pytest.mark.parametrize("name", CASES)
def test_honest_endpoints_keep_the_rule_in_the_same_run(name: str) -> None:
    assert run(CASES[name].scenario).failure is None


def test_every_documented_check_has_an_endpoint_that_fails_it() -> None:
    assert {case.check for case in CASES.values()} | OF_SWARMS == DOCUMENTED
