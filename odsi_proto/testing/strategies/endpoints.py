"""Limits, requests to open, and the ways in which a network may cut and order bytes."""

from collections.abc import Sequence
from itertools import pairwise

from hypothesis import strategies as st

from odsi_proto.limits import Limits
from odsi_proto.statemachine.claim import RequestSpec
from odsi_proto.units import LayerRange, Micros, ParticipantId
from odsi_proto.wire.codepoints import LateAction
from odsi_proto.wire.messages import StagePlan
from odsi_proto.wire.tensor import ActivationCodec, NumericProfile

LIMITS_TIGHT = Limits(
    control_frame_bytes_max=65_536,
    streams_per_connection_max=8,
    step_positions_max=4,
    step_payload_bytes_max=256,
    incoming_bytes_max=512,
    parked_steps_max=2,
    parked_bytes_max=128,
    parked_us_max=Micros(50_000),
    retained_outputs_max=2,
    requests_max=2,
    request_idle_us_max=Micros(1_000_000),
    handshake_us_max=Micros(400_000),
    open_us_max=Micros(400_000),
    abandoned_us_max=Micros(70_000),
)
"""Small enough that a few operations reach each bound."""


def limits() -> st.SearchStrategy[Limits]:
    """The tight limits, those that a node has, or some between."""
    small = st.integers(1, 6)
    some = st.builds(
        Limits,
        streams_per_connection_max=st.integers(4, 32),
        step_positions_max=small,
        step_payload_bytes_max=st.integers(64, 512),
        incoming_bytes_max=st.integers(256, 4096),
        parked_steps_max=small,
        parked_bytes_max=st.integers(16, 512),
        parked_us_max=st.integers(10_000, 2_000_000).map(Micros),
        retained_outputs_max=small,
        requests_max=small,
        request_idle_us_max=st.integers(500_000, 600_000_000).map(Micros),
        handshake_us_max=st.integers(200_000, 4_000_000).map(Micros),
        open_us_max=st.integers(200_000, 4_000_000).map(Micros),
        abandoned_us_max=st.integers(10_000, 700_000).map(Micros),
    )
    return st.one_of(st.just(LIMITS_TIGHT), st.just(Limits()), some)


def stage_plans_of(participants: Sequence[ParticipantId], *, layers_each: int = 10) -> tuple[StagePlan, ...]:
    """The places of a path, ``layers_each`` layers at every participant in order."""
    return tuple(
        StagePlan(
            participant=participant,
            standbys=(),
            layers=LayerRange(layers_each * index, layers_each * (index + 1)),
            budget_us=Micros(0),
            remaining_min_us=Micros(0),
            remaining_max_us=Micros(1_000_000),
        )
        for index, participant in enumerate(participants)
    )


@st.composite
def request_specs(
    draw: st.DrawFn, stages: tuple[StagePlan, ...], *, model_root: bytes, width: int
) -> RequestSpec:
    """What a client may ask of a path; every stage of ``stages`` can do it."""
    return RequestSpec(
        model_root=model_root,
        width=width,
        stages=stages,
        codec=draw(st.sampled_from(ActivationCodec)),
        profile=draw(st.sampled_from(NumericProfile)),
        positions_max=draw(st.integers(1, 64)),
        rows_returned_max=draw(st.integers(1, 4)),
        first_token_us=Micros(draw(st.integers(1_000, 5_000_000))),
        per_token_us=Micros(draw(st.integers(1_000, 5_000_000))),
        valid_s=draw(st.integers(0, 3_600)),
        total_us=draw(st.none() | st.integers(1_000, 9_000_000).map(Micros)),
        late_action=draw(st.sampled_from(LateAction)),
    )


@st.composite
def chunkings(draw: st.DrawFn, data: bytes, *, cuts_max: int = 6) -> list[bytes]:
    """``data`` in pieces, none of them empty; one piece shrinks best."""
    places = draw(st.lists(st.integers(1, max(1, len(data) - 1)), max_size=cuts_max, unique=True))
    ends = [0, *sorted(place for place in places if place < len(data)), len(data)]
    return [data[first:end] for first, end in pairwise(ends)]


@st.composite
def interleavings(draw: st.DrawFn, queues: Sequence[int]) -> list[int]:
    """An order in which queues of these lengths are emptied: each entry is the queue whose turn it is."""
    turns = [index for index, length in enumerate(queues) for _ in range(length)]
    return draw(st.permutations(turns))
