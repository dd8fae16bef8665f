"""Real nodes, real QUIC, the real model, in one process."""

import asyncio
import json
from dataclasses import replace
from pathlib import Path

import pytest
from node.live import Swarm, client, generate, swarm

from odsi_proto.errors import CapacityError, ConfigError, PeerError, RequestFailedError
from odsi_proto.kernels.sampling import Sampling
from odsi_proto.node.client import Client
from odsi_proto.node.quic import DATAGRAM_BYTES
from odsi_proto.node.result import FinishReason
from odsi_proto.testing import make_signer
from odsi_proto.units import LayerRange
from odsi_proto.wire.identity import participant_text
from odsi_proto.wire.tensor import ActivationCodec

REFERENCE = Path(__file__).parents[1] / "data" / "reference" / "smollm2-greedy.json"
CASES = {case["id"]: case for case in json.loads(REFERENCE.read_text())["cases"]}
LARGEST_CONTROL_DATAGRAM = 1_100
"""OPEN, COMMIT, status and keep-alives are smaller, an f16 row of 1,154 bytes is not."""


def steps_on_the_wire(swarm_: Swarm, *, towards_listener: bool) -> list[list[int]]:
    """Sizes of the datagrams with activations on each relay, one list a relay."""
    return [
        [
            d.size
            for d in relay.datagrams
            if d.towards_listener == towards_listener and d.size > LARGEST_CONTROL_DATAGRAM
        ]
        for relay in swarm_.relays
    ]


def test_three_stages_generate_the_reference_tokens_in_the_exact_profile() -> None:
    case = CASES["capital"]

    async def run() -> None:
        async with swarm() as nodes, client(nodes.path, ActivationCodec.F32) as one:
            result = await generate(one, case["prompt"], 32, chat=True)
        assert list(result.token_ids) == case["greedy_ids"]
        assert result.text == case["text"]
        assert result.finish_reason is FinishReason.END_TOKEN

    asyncio.run(run())


@pytest.mark.spec("STEP-020")
def test_an_f16_decode_step_is_one_datagram_of_at_most_1232_bytes_on_every_hop() -> None:
    tokens = 12

    async def run() -> None:
        async with swarm() as nodes, client(nodes.path, ActivationCodec.F16) as one:
            await one.probe()
            for relay in nodes.relays:
                relay.datagrams.clear()
            result = await generate(one, "Once", tokens)
            assert len(result.token_ids) == tokens
            steps = tokens  # the prompt is one token long, so every step is one row
            assert [len(sizes) for sizes in steps_on_the_wire(nodes, towards_listener=True)] == [steps] * 3
            returned = steps_on_the_wire(nodes, towards_listener=False)
            assert [len(sizes) for sizes in returned] == [0, 0, steps]
            assert max(d.size for relay in nodes.relays for d in relay.datagrams) <= DATAGRAM_BYTES

    asyncio.run(run())


def test_a_long_prompt_travels_in_chunks_and_gives_the_same_tokens_under_loss() -> None:
    prompt = "The river ran past the mill and the old men counted the boats. " * 25

    async def tokens(loss: float) -> tuple[int, ...]:
        async with swarm(loss=loss) as nodes, client(nodes.path, ActivationCodec.F32) as one:
            return (await generate(one, prompt, 4)).token_ids

    assert asyncio.run(tokens(0.05)) == asyncio.run(tokens(0.0))


def test_two_requests_at_once_do_not_disturb_each_other() -> None:
    async def run() -> None:
        async with swarm() as nodes, client(nodes.path, ActivationCodec.F32) as one:
            alone = [await generate(one, prompt, 6) for prompt in ("Once", "def f(x):")]
            together = await asyncio.gather(*(generate(one, prompt, 6) for prompt in ("Once", "def f(x):")))
        assert [r.token_ids for r in together] == [r.token_ids for r in alone]

    asyncio.run(run())


def test_a_path_is_planned_from_what_peers_say_they_run() -> None:
    async def run() -> None:
        async with swarm(2) as nodes:
            unordered = [replace(peer, layers=None) for peer in reversed(nodes.path)]
            async with client(unordered, ActivationCodec.F32, fixed_path=False) as one:
                assert [peer.layers for peer in one.path] == [LayerRange(0, 15), LayerRange(15, 30)]

    asyncio.run(run())


def test_a_peer_with_another_identity_is_refused_with_both_ids() -> None:
    async def run() -> str:
        async with swarm(1) as nodes:
            wrong = replace(nodes.path[0], participant=make_signer(77).participant)
            with pytest.raises(PeerError) as caught:
                await client([wrong], ActivationCodec.F32).__aenter__()
            return str(caught.value)

    message = asyncio.run(run())
    assert participant_text(make_signer(77).participant) in message
    assert participant_text(make_signer(1).participant) in message


def test_a_stage_that_is_not_connected_to_the_next_says_so() -> None:
    async def run() -> str:
        async with swarm(2, connected=False) as nodes:
            async with client(nodes.path, ActivationCodec.F32) as one:
                with pytest.raises(RequestFailedError) as caught:
                    await one.probe()
            return str(caught.value)

    assert "NO_ROUTE" in asyncio.run(run())


def test_a_request_for_more_positions_than_the_context_is_refused_with_both_numbers() -> None:
    async def run() -> None:
        async with swarm(1) as nodes, client(nodes.path, ActivationCodec.F32) as one:
            with pytest.raises(CapacityError, match=r"9000.*8192"):
                await generate_ids(one, [5] * 9000)
            with pytest.raises(ConfigError, match="empty"):
                await generate_ids(one, [])

    async def generate_ids(one: Client, ids: list[int]) -> None:
        async for _ in one.generate(ids, max_tokens=1, sampling=Sampling.greedy()):
            pass

    asyncio.run(run())
