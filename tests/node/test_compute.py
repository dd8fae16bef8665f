"""Whatever runs beside a step, and however it is cut, its output has the same bytes."""

import pytest
import torch
from kernels.tiny_layers import Shape, make_engine, needs_native, random_rows
from node.queue_bench import machine_us, make_queue

from odsi_proto.errors import LocalProtocolError
from odsi_proto.kernels.codecs import encode_rows
from odsi_proto.kernels.engine import StageEngine, StageStep
from odsi_proto.node.compute import Job, compute
from odsi_proto.statemachine.effects import Run
from odsi_proto.units import Micros, Position, RequestId, Slack
from odsi_proto.wire.tensor import ActivationCodec, NumericProfile

SHAPE = Shape(heads=10, kv_heads=2, norm=True)
PLANS = [
    [60, 1, 1, 1, 1],
    [1, 33, 1, 5, 1],
    [17, 17, 1, 1, 1],
    [5, 1, 1, 1, 1],
    [100, 1, 1],
    *([[1] * 6] * 10),
]
"""Positions of the steps of each request."""


def request(number: int) -> RequestId:
    return RequestId(number.to_bytes(16, "big"))


def steps(codec: ActivationCodec) -> dict[tuple[RequestId, int], Run]:
    """All steps of all requests; some want only their last rows."""
    found = {}
    for number, plan in enumerate(PLANS):
        rows = random_rows(SHAPE, sum(plan), seed=number)
        position = 0
        for count in plan:
            payload = bytes(encode_rows(codec, rows[position : position + count]))
            found[request(number), position] = Run(
                request=request(number),
                position=Position(position),
                count=count,
                payload=memoryview(payload),
                codec_in=codec,
                codec_out=codec,
                rows_out_max=count if number % 2 else 1,
                remaining_us=Micros(10**6),
                slack_us=Slack(20_000 + 7_919 * number % 90_000),
                is_droppable=False,
            )
            position += count
    return found


def one_by_one(
    engine: StageEngine, runs: dict[tuple[RequestId, int], Run]
) -> dict[tuple[RequestId, int], bytes]:
    """The payloads of steps that run alone and whole."""
    outputs = {}
    for (name, position), run in runs.items():
        outputs[name, position] = bytes(
            engine.step(
                name,
                first_position=position,
                payload=run.payload,
                codec_in=run.codec_in,
                codec_out=run.codec_out,
                rows_out_max=run.rows_out_max,
            )
        )
    return outputs


def queued(
    engine: StageEngine, runs: dict[tuple[RequestId, int], Run]
) -> tuple[dict[tuple[RequestId, int], bytes], int]:
    """The payloads of steps that all wait at once, and how many pieces they took."""
    queue, now = make_queue(), 0
    jobs = {key: Job(run, lambda _: None) for key, run in runs.items()}
    for run in runs.values():
        queue.add(run, now=Micros(now))
    while (piece := queue.next(now=Micros(now)).piece) is not None:
        compute(engine, [(jobs[part.step.run.request, part.step.run.position], part) for part in piece.parts])
        now += machine_us(piece.work)
        queue.done(took_us=machine_us(piece.work), now=Micros(now))
    return {key: bytes(job.output or b"") for key, job in jobs.items()}, queue.counts.pieces


@needs_native
@pytest.mark.parametrize("profile", NumericProfile)
@pytest.mark.parametrize("codec", ActivationCodec)
def test_batches_and_pieces_give_the_bytes_of_steps_that_ran_alone(
    profile: NumericProfile, codec: ActivationCodec
) -> None:
    runs, results = steps(codec), []
    for way in (one_by_one, queued):
        engine = make_engine(SHAPE, profile, blocks=256)
        for number, plan in enumerate(PLANS):
            engine.open(request(number), sum(plan))
        results.append(way(engine, runs))
    expected, (found, pieces) = results
    assert found == expected
    assert pieces < len(runs) / 2, "most steps ran beside others"


@needs_native
@pytest.mark.parametrize("profile", NumericProfile)
def test_a_row_that_leaves_binary32_fails_alone_and_changes_nobody_elses_bits(
    profile: NumericProfile,
) -> None:
    engine, rows = make_engine(SHAPE, profile), random_rows(SHAPE, 3)
    for number in range(4):
        engine.open(request(number), 4)
    alone = engine.run(request(3), 0, rows[:1])
    wild = torch.full((1, SHAPE.width), 3e38)
    found = engine.run_each(
        [
            StageStep(request(0), 0, wild),
            StageStep(request(1), 0, rows[:1]),
            StageStep(request(2), 0, wild),
        ]
    )
    assert isinstance(found[1], torch.Tensor)
    assert torch.equal(found[1], alone)


@needs_native
def test_a_step_that_can_not_run_keeps_no_other_back() -> None:
    engine, rows = make_engine(SHAPE), random_rows(SHAPE, 2)
    for number in range(3):
        engine.open(request(number), 2)
    found = engine.run_each(
        [
            StageStep(request(0), 1, rows[:1]),
            StageStep(request(1), 0, rows[:1]),
            StageStep(request(9), 0, rows[:1]),
            StageStep(request(2), 0, rows),
        ]
    )
    assert [isinstance(result, LocalProtocolError) for result in found] == [True, False, True, False]
    assert [engine.positions_held(request(number)) for number in range(3)] == [0, 1, 2]


@needs_native
def test_two_steps_of_one_request_are_no_batch() -> None:
    engine, rows = make_engine(SHAPE), random_rows(SHAPE, 2)
    engine.open(request(0), 2)
    with pytest.raises(LocalProtocolError, match="two steps of one request"):
        engine.run_each([StageStep(request(0), 0, rows[:1]), StageStep(request(0), 1, rows[1:])])
