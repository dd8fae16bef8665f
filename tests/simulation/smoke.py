"""The runs of the smoke set: what must come to every rule of the state machines between them.

Scenarios that are written down come to every row, timer, error code and fault by themselves, so that a
change in how seeds are drawn takes nothing away; the seeds and the corpus are there beside them.
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from odsi_proto.cli.sim_file import read_scenario
from odsi_proto.testing.rogue import DEVIATIONS, Deviation, Part, Seat
from odsi_proto.testing.simulation import Fault, FaultKind, Scenario, SimOptions
from odsi_proto.wire.codepoints import LateAction

SEEDS = range(60)
"""Two or three seconds of them; `odsi sim swarm` runs more."""

CORPUS = tuple(sorted((Path(__file__).parent / "corpus").glob("*.json")))

_SEATS = {Seat.FIRST: "stage-0", Seat.MIDDLE: "stage-1", Seat.LAST: "stage-2"}
_SMALL = (
    ("streams_per_connection_max", 32),
    ("step_positions_max", 16),
    ("incoming_bytes_max", 4_096),
    ("parked_steps_max", 4),
    ("parked_bytes_max", 128),
    ("retained_outputs_max", 2),
    ("requests_max", 5),
    ("queued_steps_max", 6),
    ("request_idle_us_max", 7_000_000),
)
"""Limits that a rogue meets with the positions of a short request; honest ones do not."""

PLAIN = SimOptions()
_FIRST_OPEN_US = 10_000
"""Sessions are established and the first stage has the OPEN, with 2 ms for each hop."""
_BUSY_US = 60_000
"""Tokens are being generated."""


def _fault(kind: FaultKind, target: str, at_us: int = _BUSY_US, **more: int | str) -> Fault:
    return Fault(at_us=at_us, kind=kind, target=target, **more)  # type: ignore[arg-type]  # its own fields


_K = FaultKind

FAULTS: Mapping[str, tuple[SimOptions, tuple[Fault, ...]]] = {
    "crash": (PLAIN, (_fault(_K.CRASH, "stage-1"),)),
    "crash-and-restart": (PLAIN, (_fault(_K.CRASH_AND_RESTART, "stage-1", for_us=50_000),)),
    "pause": (PLAIN, (_fault(_K.PAUSE, "stage-1", for_us=50_000),)),
    "clock-rate": (PLAIN, (_fault(_K.CLOCK_RATE, "stage-1", for_us=500_000, amount=-50_000),)),
    "clock-jump": (PLAIN, (_fault(_K.CLOCK_JUMP, "client-0", amount=8_000_000),)),
    "straggler": (
        replace(PLAIN, per_token_us=100_000),
        (_fault(_K.STRAGGLER, "stage-1", for_us=900_000, amount=200),),
    ),
    "compute-failure": (PLAIN, (_fault(_K.COMPUTE_FAILURE, "stage-1", amount=1),)),
    "executor-silent": (PLAIN, (_fault(_K.EXECUTOR_SILENT, "stage-1", for_us=500_000),)),
    "reserve-refused": (PLAIN, (_fault(_K.RESERVE_REFUSED, "stage-1", 0, for_us=100_000),)),
    "reserve-slow": (
        replace(PLAIN, limits_set=(("open_us_max", 100_000),)),
        (_fault(_K.RESERVE_SLOW, "stage-1", 0, for_us=500_000, amount=300_000),),
    ),
    "slow-consumer": (PLAIN, (_fault(_K.SLOW_CONSUMER, "stage-1", for_us=500_000, amount=10_000),)),
    "cancel-at": (PLAIN, (_fault(_K.CANCEL_AT, "client-0"),)),
    "connection-loss-noticed": (PLAIN, (_fault(_K.CONNECTION_LOSS_NOTICED, "stage-0", peer="stage-1"),)),
    "connection-loss-silent": (PLAIN, (_fault(_K.CONNECTION_LOSS_SILENT, "stage-0", peer="stage-1"),)),
    "partition-one-way": (
        PLAIN,
        (_fault(_K.PARTITION_ONE_WAY, "stage-0", peer="stage-1", for_us=50_000),),
    ),
    "partition-two-way": (
        PLAIN,
        (_fault(_K.PARTITION_TWO_WAY, "stage-0", peer="stage-1", for_us=50_000),),
    ),
    "stream-reset": (PLAIN, (_fault(_K.STREAM_RESET, "stage-0", peer="stage-1", amount=20),)),
    "drain": (
        replace(PLAIN, requests=2, gap_us=200_000),
        (_fault(_K.DRAIN, "stage-0"), _fault(_K.DRAIN, "stage-0", 70_000)),
    ),
    "duplicate-step": (
        PLAIN,
        (
            _fault(_K.DUPLICATE_STEP, "client-0", for_us=500, amount=1),
            _fault(_K.DUPLICATE_STEP, "stage-0", for_us=4_000, amount=1),
        ),
    ),
}
"""At least one for each kind of fault that is no rogue."""

BUDGETS: Mapping[str, tuple[SimOptions, tuple[Fault, ...]]] = {
    "a-whole-budget-runs-out": (replace(PLAIN, total_us=100_000), ()),
    "a-plan": (replace(PLAIN, stage_budget_us=1_500), ()),
    "a-step-expires-in-the-queue": (
        replace(
            PLAIN,
            requests=4,
            compute_us=30_000,
            first_token_us=160_000,
            per_token_us=160_000,
            late_action=LateAction.FAIL,
        ),
        (),
    ),
    "a-budget-that-can-not-be-met": (
        replace(PLAIN, compute_us=30_000, per_token_us=25_000, requests=2, gap_us=400_000),
        (),
    ),
    "a-short-queue": (replace(PLAIN, requests=4, chunk_positions=1, queue_steps=2), ()),
    "reroute": (
        replace(PLAIN, late_action=LateAction.REROUTE, per_token_us=100_000),
        (_fault(_K.STRAGGLER, "stage-1", for_us=900_000, amount=200),),
    ),
}
"""What deadlines and full queues cause without a fault."""

ROWS: Mapping[str, tuple[SimOptions, tuple[Fault, ...]]] = {
    "drained-while-shaking-hands": (PLAIN, (_fault(_K.DRAIN, "stage-1", 5_000),)),
    "overtaking-chunks": (replace(PLAIN, chunk_positions=1, prompt_positions=16, jitter_us=20_000), ()),
    "a-chunk-never-comes": (
        replace(PLAIN, chunk_positions=1, limits_set=(("parked_us_max", 20_000),)),
        (_fault(_K.STREAM_RESET, "client-0", _FIRST_OPEN_US, peer="stage-0", amount=20),),
    ),
    "a-step-again-long-after": (
        replace(PLAIN, limits_set=(("retained_outputs_max", 1),)),
        (_fault(_K.DUPLICATE_STEP, "client-0", for_us=100_000, amount=1),),
    ),
    "more-bytes-under-way-than-a-stage-takes": (
        replace(
            PLAIN,
            prompt_positions=16,
            row_width=32,
            stream_window_bytes=64,
            limits_set=(("incoming_bytes_max", 1_024),),
        ),
        (),
    ),
}
"""Rows that neither a fault nor a deviation alone comes to, and a limit that honest clients do not know."""


def smoke_set() -> Iterator[tuple[str, Scenario]]:
    """Every run of the set, with a name."""
    for seed in SEEDS:
        yield f"seed {seed}", Scenario.draw(seed)
    for deviation in DEVIATIONS.values():
        yield f"rogue {deviation.name}", _with_rogue(deviation)
    for name, (options, plan) in {**FAULTS, **BUDGETS, **ROWS}.items():
        yield name, Scenario(seed=1, options=options, plan=plan)
    for file in CORPUS:
        yield f"corpus {file.stem}", read_scenario(file).scenario


def _with_rogue(deviation: Deviation) -> Scenario:
    """One who can do it does it, on the plainest network; `tests/rogue` has the others."""
    target = "rogue" if Part.CLIENT in deviation.parts else _SEATS[deviation.seats[-1]]
    options = SimOptions(
        requests=2,
        gap_us=600_000,
        tokens=12,
        late_action=deviation.late_action or PLAIN.late_action,
        limits_set=_SMALL,
    )
    fault = Fault(at_us=0, kind=FaultKind.ROGUE, target=target, name=deviation.name)
    return Scenario(seed=1, options=options, plan=(fault,))
