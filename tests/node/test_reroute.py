"""A stage that is late is left out: the generation goes on elsewhere, token for token, or says why not."""

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from node.live import client, spare, swarm

from odsi_proto.errors import ConfigError
from odsi_proto.kernels.sampling import Sampling
from odsi_proto.node.client import Client, prompt_chunks
from odsi_proto.node.result import GenerationFailedError, GenerationResult
from odsi_proto.node.server import Node
from odsi_proto.routing.budget import Targets
from odsi_proto.statemachine.effects import Effect, Run
from odsi_proto.units import Micros
from odsi_proto.wire.codepoints import LateAction
from odsi_proto.wire.tensor import ActivationCodec

REFERENCE = Path(__file__).parents[1] / "data" / "reference" / "smollm2-greedy.json"
CASE = next(case for case in json.loads(REFERENCE.read_text())["cases"] if case["id"] == "capital")
SOON = Targets(first_token_us=Micros(60_000_000), per_token_us=Micros(1_500_000))


def within(us: int) -> Targets:
    return Targets(first_token_us=Micros(us), per_token_us=Micros(us))


def falls_silent(node: Node, position: int) -> None:
    """From ``position`` on the node's executor answers no step."""
    perform = node.perform

    def silent(effect: Effect) -> None:
        if not isinstance(effect, Run) or effect.position < position:
            perform(effect)

    node.perform = silent  # type: ignore[method-assign]


async def generated(one: Client, targets: Targets = SOON) -> GenerationResult:
    prompt_ids = one.prompt_tokens(CASE["prompt"], chat=True)
    result = None
    async for event in one.generate(
        prompt_ids,
        max_tokens=32,
        sampling=Sampling.greedy(),
        targets=targets,
        late_action=LateAction.REROUTE,
    ):
        result = event
    assert isinstance(result, GenerationResult)
    return result


@pytest.mark.spec("TIME-003")
def test_a_generation_goes_on_along_another_path_with_the_same_tokens() -> None:
    async def run() -> None:
        async with swarm(2) as nodes, spare(nodes) as other:
            peers = (*nodes.path, other.peer)
            async with client(peers, ActivationCodec.F32, fixed_path=False) as one:
                assert one.path == nodes.path
                prompt = len(one.prompt_tokens(CASE["prompt"], chat=True))
                falls_silent(nodes.nodes[-1], prompt + 3)
                result = await generated(one)
        assert list(result.token_ids) == CASE["greedy_ids"]
        assert (result.reroutes, result.is_exact) == (1, True)
        assert result.stages[-1].participant == other.participant
        assert result.prompt_positions == prompt

    asyncio.run(run())


@pytest.mark.spec("TIME-003")
def test_a_path_that_refuses_the_request_is_left_before_anything_is_counted() -> None:
    """What went on elsewhere counted from the machine's start, and of no prompt."""

    async def run() -> tuple[GenerationResult, int]:
        async with swarm(2) as nodes, spare(nodes) as other:
            full = nodes.nodes[-1]
            load = full._execution.load()._replace(credit_steps=0)
            full._endpoint.executor_measured(load)
            peers = (*nodes.path, other.peer)
            async with client(peers, ActivationCodec.F32, fixed_path=False) as one:
                return await generated(one), len(one.prompt_tokens(CASE["prompt"], chat=True))

    result, prompt = asyncio.run(run())
    assert list(result.token_ids) == CASE["greedy_ids"]
    assert (result.reroutes, result.prompt_positions) == (1, prompt)
    assert 0 < result.first_token_us < SOON.first_token_us


@pytest.mark.spec("TIME-003", "REQ-062")
def test_without_another_path_the_generation_fails_and_names_the_stage() -> None:
    """Given half a second for a whole prompt, the stage before it was late itself on a busy machine."""

    async def run() -> tuple[list[str], int]:
        reasons = []
        async with swarm(2) as nodes:
            for fixed_path in (False, True):
                async with client(nodes.path, ActivationCodec.F32, fixed_path=fixed_path) as one:
                    prompt = len(one.prompt_tokens(CASE["prompt"], chat=True))
                    if not reasons:
                        falls_silent(nodes.nodes[-1], prompt)
                    with pytest.raises(ConfigError, match="not be there in 10 us: the stages take 100 us"):
                        await generated(one, within(10))
                    with pytest.raises(GenerationFailedError) as caught:
                        await generated(one, SOON)
                    reasons.append(str(caught.value))
                    so_far = caught.value.result
                    assert (so_far.failure, so_far.steps[-1].arrived_us) == (reasons[-1], -1)
        return reasons, prompt

    (chosen, given), prompt = asyncio.run(run())
    for why in (chosen, given):
        assert "stage 1 (" in why
        assert f"EXPIRED: no rows for position {prompt} within the budget; no other path: " in why
    assert "starts at layer 15 and leads to 30" in chosen
    assert "this one was given stage by stage" in given


@pytest.mark.parametrize(
    ("count", "positions", "sizes"),
    [
        (1, 4, [1]),
        (4, 4, [4]),
        (5, 4, [3, 2]),
        (9, 4, [4, 3, 2]),
        (10, 4, [4, 4, 2]),
        (3, 1, [1, 1, 1]),
        (3, 2, [2, 1]),
    ],
)
@pytest.mark.spec("TIME-028")
def test_a_prompt_of_several_chunks_does_not_end_with_one_position(
    count: int, positions: int, sizes: Sequence[int]
) -> None:
    chunks = list(prompt_chunks(range(count), positions))
    assert [len(chunk) for chunk in chunks] == sizes
    assert [token for chunk in chunks for token in chunk] == list(range(count))
