"""A real node while real requests pass: what it says of itself."""

import asyncio
from collections.abc import Callable

import pytest
from node.live import client, generate, swarm
from structlog.testing import capture_logs

from odsi_proto.node.result import GenerationResult
from odsi_proto.node.server import Node
from odsi_proto.node.status import NodeStatus, read_status, to_fields
from odsi_proto.testing import make_signer
from odsi_proto.wire.identity import participant_short, participant_text
from odsi_proto.wire.tensor import ActivationCodec

TOKENS = 6
END_S_MAX = 10.0


async def until(node: Node, condition: Callable[[NodeStatus], object]) -> NodeStatus:
    """The first status for which it holds."""
    async with asyncio.timeout(END_S_MAX):
        while not condition(status := node.snapshot().status):
            await asyncio.sleep(0)
    return status


def parts_us(result: GenerationResult) -> list[int]:
    """Means of everything that a token's time is made of."""
    own = result.client
    parts = [own.caller, own.embed, own.send, own.returned, own.head, own.sample, result.unaccounted]
    return [part.mean_us for part in (*parts, *(stage.total for stage in result.stages))]


def test_a_node_counts_what_passes_it_and_forgets_who_has_gone() -> None:
    async def run() -> None:
        async with swarm(2) as nodes:
            first, last = nodes.nodes
            async with client(nodes.path, ActivationCodec.F16) as one:
                result = await generate(one, "Once", TOKENS)
                during = first.snapshot()
                await until(last, lambda status: status.requests_finished == 1)
            after = await until(first, lambda status: len(status.connections) == 1)

        status = during.status
        assert read_status(to_fields(status)) == status
        assert (status.steps["done"], status.deadline_misses, status.requests_opened) == (TOKENS, 0, 1)
        assert [during.compute_us.count, during.slack_us.count, during.batches.count] == [TOKENS] * 3
        peers = {one.participant: one for one in status.connections}
        assert set(peers) == {participant_text(make_signer(seed).participant) for seed in (2, 99)}
        asking = peers[participant_text(make_signer(99).participant)]
        assert asking.received_bytes > TOKENS * 1_152
        assert asking.rtt_min_us > 0
        assert status.busy_us > 0
        assert (after.kv_blocks_used, after.requests, after.waiting_steps) == (0, (), 0)
        assert len(result.steps) == TOKENS
        assert all(hop is not None for step in result.steps for hop in step.hops)
        assert sum(parts_us(result)) == pytest.approx(result.token.mean_us, abs=len(parts_us(result)))

    asyncio.run(run())


def test_a_request_has_two_lines_in_the_log_of_a_node_however_many_steps_it_has() -> None:
    async def run() -> None:
        async with swarm(1) as nodes:
            with capture_logs() as logged:
                async with client(nodes.path, ActivationCodec.F16) as one:
                    await generate(one, "Once", TOKENS)
                    await until(nodes.nodes[0], lambda status: status.requests_finished == 1)
            lines = [event for event in logged if event["event"].startswith("request ")]
            assert [event["event"] for event in lines] == ["request opened", "request finished"]
            assert lines[1]["steps"] == lines[1]["positions"] == TOKENS
            assert {event["client"] for event in lines} == {participant_short(make_signer(99).participant)}
            assert len(logged) < TOKENS

    asyncio.run(run())
