"""Where the time of a generation went: parts that add up, and reports that are not to be trusted."""

import asyncio

import pytest
from node import timelines
from node.timelines import Generation, record

from odsi_proto.node import tally as tally_module
from odsi_proto.node.result import GenerationResult, Spread


def parts_us(result: GenerationResult) -> int:
    client = result.client
    own = (client.caller, client.embed, client.send, client.returned, client.head, client.sample)
    stages = [stage.total for stage in result.stages]
    return sum(part.mean_us for part in (*own, *stages, result.unaccounted))


def generated(*compute_us: int, stages: int = 3) -> GenerationResult:
    generation = Generation(stages)
    generation.first()
    for took_us in compute_us:
        generation.token(took_us)
    return generation.result()


def test_the_parts_add_up_to_the_time_from_token_to_token() -> None:
    result = generated(5_000, 7_000, 9_000)

    assert parts_us(result) == result.token.mean_us
    assert result.unaccounted == Spread(*[timelines.UNACCOUNTED_US] * 3)
    assert result.client.caller.mean_us == timelines.CALLER_US
    assert result.client.returned.mean_us == timelines.RETURN_US
    stage = result.stages[1]
    assert (stage.transfer.mean_us, stage.queue.mean_us) == (timelines.TRANSFER_US, timelines.QUEUE_US)
    assert (stage.compute, stage.coordination.mean_us) == (
        Spread(7_000, 7_000, 9_000),
        timelines.COORDINATION_US,
    )


def test_the_prompt_is_no_part_of_the_times_of_a_token() -> None:
    assert generated(5_000).stages[0].compute == Spread(5_000, 5_000, 5_000)
    assert generated().token == Spread(0, 0, 0)
    assert generated().first_token_us > 3 * 20_000


@pytest.mark.parametrize(
    ("values", "spread"),
    [
        ([], (0, 0, 0)),
        ([7], (7, 7, 7)),
        ([1, 2], (2, 1, 2)),
        (range(1, 101), (50, 50, 99)),
        (range(1, 102), (51, 51, 100)),
    ],
)
def test_percentiles_are_by_nearest_rank(values: list[int], spread: tuple[int, int, int]) -> None:
    assert Spread.of(values) == spread


def test_a_step_and_stage_count_once_however_often_they_are_reported() -> None:
    generation = Generation()
    generation.first()
    generation.token(5_000)
    for _ in range(1_000):
        generation.tally.add_status([record(0, 1, 9_999_999), record(1, 77, 1), record(9, 1, 1)])

    result = generation.result()

    assert result.stages[0].compute.mean_us == 5_000
    assert len(result.steps) == 2


def test_a_stage_that_reports_nothing_is_missing_and_not_zero() -> None:
    generation = Generation(2)
    generation.first()
    generation.send(1)
    generation.arrive(1, 5_000, report=False)
    generation.tally.add_status([record(1, 1, 5_000)])
    generation.sample(1)

    result = generation.result()

    assert [hop is None for hop in result.steps[1].hops] == [True, False]
    assert result.stages[0].compute == Spread(0, 0, 0)
    hop_us = timelines.TRANSFER_US + timelines.QUEUE_US + 5_000 + timelines.COORDINATION_US
    assert result.unaccounted.mean_us == timelines.UNACCOUNTED_US + hop_us


def test_no_more_steps_are_kept_than_the_bound_and_the_result_says_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tally_module, "HOPS_MAX", 3 * 10)

    result = generated(*[5_000] * 20)

    assert (len(result.steps), result.steps_left_out) == (10, 11)
    assert len(result.token_ids) == 21
    assert parts_us(result) == result.token.mean_us


def test_after_a_reroute_the_parts_are_those_of_the_last_path() -> None:
    generation = Generation(2, prompt=4)
    generation.first()
    generation.token(5_000)
    generation.reroute()
    generation.send(6)
    generation.arrive(0, 30_000)
    generation.sample(2)
    generation.token(7_000)

    result = generation.result(reroutes=1)

    assert (result.prompt_positions, result.replayed_positions, len(result.token_ids)) == (4, 6, 4)
    assert [(step.position, step.positions) for step in result.steps] == [(0, 6), (6, 1)]
    assert [stage.compute.mean_us for stage in result.stages] == [7_000, 7_000]
    assert [str(stage.layers) for stage in result.stages] == ["10-20", "0-10"]
    assert parts_us(result) == result.token.mean_us


def test_the_wait_for_reports_ends_when_every_stage_has_reported() -> None:
    async def run() -> None:
        generation = Generation(2)
        generation.send(1)
        waiting = asyncio.ensure_future(generation.tally.wait_reported(timelines.Position(0)))
        generation.tally.add_status([record(0, 0, 1)])
        await asyncio.sleep(0)
        assert not waiting.done()
        generation.tally.add_status([record(1, 0, 1)])
        await asyncio.wait_for(waiting, 10)

    asyncio.run(run())
