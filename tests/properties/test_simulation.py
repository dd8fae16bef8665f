"""Drawn runs of the simulator: no plan of faults breaks a rule, and one that does becomes small."""

import random

from hypothesis import find, given, settings
from hypothesis import strategies as st
from properties.profile import share

from odsi_proto.statemachine.effects import Effect
from odsi_proto.statemachine.stage import StageEndpoint
from odsi_proto.testing import strategies as odsi
from odsi_proto.testing.simulation import (
    Endpoints,
    FaultKind,
    FaultPlan,
    Scenario,
    SimOptions,
    run,
)
from odsi_proto.units import ConnectionId, Micros

LOSSES = {
    *(FaultKind.CONNECTION_LOSS_NOTICED, FaultKind.CONNECTION_LOSS_SILENT, FaultKind.CRASH),
    *(FaultKind.CRASH_AND_RESTART, FaultKind.PARTITION_ONE_WAY, FaultKind.PARTITION_TWO_WAY, FaultKind.PAUSE),
}


class Forgetful(StageEndpoint):
    """A stage that does not look when a connection is lost."""

    def connection_lost(self, connection: ConnectionId, reason: str, *, now: Micros) -> tuple[Effect, ...]:
        return ()


@given(odsi.scenarios())
@share(40)
def test_a_scenario_is_the_same_after_a_journey_as_json(scenario: Scenario) -> None:
    assert Scenario.from_json(scenario.to_json()) == scenario


@given(odsi.scenarios())
@share(40)
def test_no_plan_of_faults_breaks_a_rule(scenario: Scenario) -> None:
    result = run(scenario)
    assert result.failure is None, scenario.to_json()
    requests = scenario.options.clients * scenario.options.requests
    assert len(result.outcomes) == requests
    for outcome in result.outcomes:
        assert outcome.code or len(outcome.tokens) == scenario.options.tokens


@given(odsi.scenarios(), st.randoms(use_true_random=False))
@share(5)
def test_a_run_is_the_same_again(scenario: Scenario, noise: random.Random) -> None:
    first = run(scenario)
    noise.random()
    assert run(scenario) == first


def test_a_broken_endpoint_is_found_and_its_plan_becomes_small() -> None:
    options = SimOptions(stages=2, tokens=12, prompt_positions=1, safety_us=100_000)

    def breaks(plan: FaultPlan) -> bool:
        scenario = Scenario(seed=0, options=options, plan=plan)
        return run(scenario, endpoints=Endpoints(stage=Forgetful)).failure is not None

    chosen = settings(max_examples=300, database=None, deadline=None, derandomize=True)
    plan = find(odsi.fault_plans(options), breaks, settings=chosen, random=random.Random(1))
    assert run(Scenario(seed=0, options=options, plan=plan)).failure is None
    (fault,) = plan
    assert fault.kind in LOSSES
    assert fault.at_us <= options.safety_us
