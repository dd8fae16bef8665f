"""Options and fault plans of the simulator: what fails shrinks to the fewest faults on the plainest path.

A seed of the swarm draws the same things at random and is minimised by
:func:`odsi_proto.testing.simulation.minimise`; here Hypothesis chooses and shrinks.
"""

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any

from hypothesis import strategies as st

from odsi_proto.testing.simulation import Fault, FaultKind, FaultPlan, Scenario, SimOptions
from odsi_proto.testing.simulation.faults import CLOCK_RATE_PPM_MAX, OF_CLIENTS, OF_LINKS, OF_STAGES
from odsi_proto.testing.simulation.options import CHUNKINGS
from odsi_proto.wire.codepoints import LateAction

FAULTS_MAX = 6
"""Faults of one drawn plan."""

_LIMITS: Mapping[str, tuple[int, ...]] = MappingProxyType(
    {
        "parked_steps_max": (2, 1),
        "parked_us_max": (50_000, 5_000),
        "retained_outputs_max": (2, 1),
        "requests_max": (2, 1),
        "request_idle_us_max": (300_000, 60_000),
        "open_us_max": (500_000, 60_000),
        "streams_per_connection_max": (4, 2),
        "step_positions_max": (4, 2),
        "handshake_us_max": (200_000, 20_000),
        "status_delay_us": (0, 100_000),
        "abandoned_us_max": (50_000, 1_000),
        "queued_bytes_max": (512, 64),
        "parked_bytes_max": (512, 64),
        "incoming_bytes_max": (4_096, 512),
    }
)
"""Values at which a limit is met in a short run."""

_LASTS_UNTIL_HEALED = frozenset({FaultKind.CRASH, FaultKind.DRAIN, FaultKind.CANCEL_AT})
"""Kinds without a duration, as those of a connection that is lost."""

_AMOUNTS: Mapping[FaultKind, tuple[int, int]] = MappingProxyType(
    {
        FaultKind.CLOCK_RATE: (-CLOCK_RATE_PPM_MAX, CLOCK_RATE_PPM_MAX),
        FaultKind.CLOCK_JUMP: (1_000, 10_000_000),
        FaultKind.STRAGGLER: (2, 200),
        FaultKind.COMPUTE_FAILURE: (1, 3),
        FaultKind.RESERVE_SLOW: (1_000, 6_000_000),
        FaultKind.SLOW_CONSUMER: (100, 100_000),
        FaultKind.STREAM_RESET: (0, 200),
        FaultKind.DUPLICATE_STEP: (1, 4),
    }
)
"""Least and most of ``amount``, where a kind has one."""


@st.composite
def sim_options(draw: st.DrawFn) -> SimOptions:
    """What a run is like: a short path and few tokens first."""
    choose = {
        "stages": (1, 2, 3),
        "clients": (1, 2),
        "requests": (1, 2),
        "tokens": (1, 3, 8),
        "prompt_positions": (1, 3, 8),
        "chunk_positions": (4, 1, 16),
        "delay_us": (2_000, 0, 20_000),
        "jitter_us": (0, 500, 60_000),
        "chunking": CHUNKINGS,
        "window_bytes": (1 << 20, 4_096, 512),
        "stream_window_bytes": (1 << 20, 1_024, 64),
        "orders_steps": (False, True),
        "late_bytes": (False, True),
        "compute_us": (1_000, 0, 10_000),
        "gap_us": (0, 50_000),
        "think_us": (0, 100_000),
        "total_us": (0, 300_000, 3_000_000),
        "stage_budget_us": (0, 1_000, 20_000),
        "queue_steps": (256, 2, 8),
        "late_action": tuple(map(int, (LateAction.CONTINUE, LateAction.FAIL, LateAction.REROUTE))),
        "clock_ppm": (0, 500),
        "wall_s": (0, 300),
        "lateness_us": (0, 5_000),
        "safety_us": (200_000, 20_000, 3_000_000),
    }
    drawn: dict[str, Any] = {name: draw(st.sampled_from(values)) for name, values in choose.items()}
    options = replace(SimOptions(), **drawn)
    # Ample, or a few times what a token takes when nothing goes wrong.
    factor = draw(st.sampled_from((0, 4, 2, 1)))
    if factor:
        chunks = -(-options.prompt_positions // options.chunk_positions)
        fair_us = factor * options.round_us
        options = replace(options, first_token_us=fair_us * (1 + chunks), per_token_us=fair_us)
    names = draw(st.lists(st.sampled_from(sorted(_LIMITS)), max_size=3, unique=True))
    limits_set = tuple((name, draw(st.sampled_from(_LIMITS[name]))) for name in names)
    return replace(options, limits_set=limits_set)


@st.composite
def faults(draw: st.DrawFn, options: SimOptions) -> Fault:
    """One thing that can go wrong in a run with these options."""
    kind = draw(st.sampled_from([kind for kind in FaultKind if kind is not FaultKind.ROGUE]))
    target, peer = draw(_places(kind, options))
    has_duration = kind not in _LASTS_UNTIL_HEALED and (
        kind not in OF_LINKS or kind in {FaultKind.PARTITION_ONE_WAY, FaultKind.PARTITION_TWO_WAY}
    )
    low, high = _AMOUNTS.get(kind, (0, 0))
    return Fault(
        at_us=draw(st.integers(0, options.safety_us - 1)),
        kind=kind,
        target=target,
        peer=peer,
        for_us=draw(st.integers(1_000, 6_000_000)) if has_duration else 0,
        amount=draw(st.integers(low, high)),
    )


@st.composite
def fault_plans(draw: st.DrawFn, options: SimOptions, *, faults_max: int = FAULTS_MAX) -> FaultPlan:
    """Faults of a run in order of time; none shrinks best."""
    drawn = draw(st.lists(faults(options), max_size=faults_max))
    return tuple(sorted(drawn, key=lambda fault: fault.at_us))


@st.composite
def scenarios(draw: st.DrawFn, *, faults_max: int = FAULTS_MAX) -> Scenario:
    """All that a run depends on: :func:`odsi_proto.testing.simulation.run` takes it."""
    options = draw(sim_options())
    plan = draw(fault_plans(options, faults_max=faults_max))
    return Scenario(seed=draw(st.integers(0, 1_000)), options=options, plan=plan)


def _places(kind: FaultKind, options: SimOptions) -> st.SearchStrategy[tuple[str, str]]:
    """Where a fault can happen: a node, or one end of a link and the other."""
    if kind is FaultKind.STREAM_RESET:
        return st.sampled_from(options.links)
    if kind in OF_LINKS:
        return st.sampled_from([end for link in options.links for end in (link, link[::-1])])
    stages, clients = options.stage_names, options.client_names
    names = stages if kind in OF_STAGES else clients if kind in OF_CLIENTS else (*stages, *clients)
    return st.sampled_from([(name, "") for name in names])
