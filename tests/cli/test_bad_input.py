"""Bad input meets real nodes: one line that names what and where, an exit code, and no waiting."""

import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest
from cli.programs import Here, Outcome, program
from kernels.tiny_llama import TinyShape, write_tiny

from odsi_proto.node.identity_files import ephemeral_signer
from odsi_proto.routing.path import Peer
from odsi_proto.wire.identity import participant_text

END_S_MAX = 5.0
"""No failure may hang longer."""

HOSTILE_TEMPLATES = {
    "endless": "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
    "huge": "{{ 'x'|center(10**9) }}",
    "nosy": "{{ messages.__class__.__mro__ }}",
    "broken": "{% for %}",
}


@pytest.fixture(scope="module")
def nodes(tiny: Path) -> Iterator[tuple[Peer, Peer]]:
    """Two nodes that run layers 0-1 and 1-3 of the tiny model."""
    with ExitStack() as stack:
        arguments = ("node", "--model", str(tiny), "--ephemeral", "--json", "--log-level=error")
        last = stack.enter_context(program(*arguments, "--layers=1-3"))
        second = Peer.parse(last.event("ready")["peer"])
        first = stack.enter_context(program(*arguments, "--layers=0-1", "--peer", str(second)))
        yield Peer.parse(first.event("ready")["peer"]), second


@pytest.fixture
def silent_port() -> Iterator[int]:
    """A port where datagrams arrive and nobody answers."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
        udp.bind(("127.0.0.1", 0))
        yield udp.getsockname()[1]


def generate(odsi: Here, model: Path, *arguments: str) -> Outcome:
    """Run ``odsi generate``, which must not take longer than any failure may."""
    started_s = time.monotonic()
    outcome = odsi("generate", "--model", model, "--max-tokens=4", "--raw", "--prompt=hello", *arguments)
    assert time.monotonic() - started_s < END_S_MAX
    return outcome


def along(*path: Peer) -> str:
    return f"--path={','.join(map(str, path))}"


def test_a_good_path_generates(odsi: Here, tiny: Path, nodes: tuple[Peer, Peer]) -> None:
    distributed = generate(odsi, tiny, along(*nodes), "--profile=exact", "--json")
    local = generate(odsi, tiny, "--local", "--cuts=1", "--profile=exact", "--json")

    assert distributed.code == 0, distributed.err
    assert distributed.events[-1]["token_ids"] == local.events[-1]["token_ids"]


def test_a_path_is_found_among_peers_in_any_order(odsi: Here, tiny: Path, nodes: tuple[Peer, Peer]) -> None:
    named = [f"--peer={replace(peer, layers=None)}" for peer in reversed(nodes)]

    outcome = generate(odsi, tiny, *named, "--json")

    assert outcome.code == 0, outcome.err
    assert [stage["layers"] for stage in outcome.events[-1]["stages"]] == ["0-1", "1-3"]


def test_a_peer_that_does_not_answer_is_named(
    odsi: Here, tiny: Path, nodes: tuple[Peer, Peer], silent_port: int
) -> None:
    outcome = generate(odsi, tiny, along(replace(nodes[0], port=silent_port), nodes[1]))

    assert outcome.code == 5
    assert f"at 127.0.0.1:{silent_port}" in outcome.message


def test_a_peer_with_another_identity_is_refused(odsi: Here, tiny: Path, nodes: tuple[Peer, Peer]) -> None:
    stranger = ephemeral_signer(now_s=0).participant

    outcome = generate(odsi, tiny, along(replace(nodes[0], participant=stranger), nodes[1]))

    assert outcome.code == 5
    assert participant_text(stranger) in outcome.message
    assert participant_text(nodes[0].participant) in outcome.message


def test_a_gap_in_the_path_is_named(odsi: Here, tiny: Path, nodes: tuple[Peer, Peer]) -> None:
    outcome = generate(odsi, tiny, along(nodes[1]))

    assert outcome.code == 2
    assert outcome.message.startswith("gap in the path: no stage before ")
    assert "runs layers 0-1" in outcome.message


def test_a_path_that_ends_early_is_named(odsi: Here, tiny: Path, nodes: tuple[Peer, Peer]) -> None:
    outcome = generate(odsi, tiny, along(nodes[0]))

    assert outcome.code == 2
    assert outcome.message == "gap in the path: no stage runs layers 1-3 of the model"


def test_an_overlap_in_the_path_is_named(odsi: Here, tiny: Path, nodes: tuple[Peer, Peer]) -> None:
    outcome = generate(odsi, tiny, along(nodes[0], nodes[0], nodes[1]))

    assert outcome.code == 2
    assert outcome.message.startswith("overlap in the path: layers 0-1 of ")


def test_a_stage_of_a_path_needs_its_layers(odsi: Here, tiny: Path, nodes: tuple[Peer, Peer]) -> None:
    outcome = generate(odsi, tiny, along(replace(nodes[0], layers=None), nodes[1]))

    assert outcome.code == 2
    assert "has no layers: write ID@HOST:PORT[LO-HI]" in outcome.message


def test_peers_that_make_no_path_are_listed(odsi: Here, tiny: Path, nodes: tuple[Peer, Peer]) -> None:
    outcome = generate(odsi, tiny, f"--peer={nodes[1]}")

    assert outcome.code == 2
    assert outcome.message.startswith("no path: nobody runs a range that starts at layer 0")


def test_layers_that_a_node_does_not_run_are_refused_by_it(
    odsi: Here, tiny: Path, nodes: tuple[Peer, Peer]
) -> None:
    claimed = Peer.parse(f"{replace(nodes[0], layers=None)}[0-3]")

    outcome = generate(odsi, tiny, along(claimed))

    assert outcome.code == 6
    assert outcome.message.startswith("stage 0 (")


def test_another_model_is_refused_with_both_digests(
    odsi: Here, tmp_path: Path, tiny: Path, nodes: tuple[Peer, Peer]
) -> None:
    write_tiny(tmp_path / "other.gguf", TinyShape(seed=1))
    roots = [
        odsi("model", "inspect", model, "--digest", "--json").events[0]["model_root"]
        for model in (tiny, tmp_path / "other.gguf")
    ]

    outcome = generate(odsi, tmp_path / "other.gguf", along(*nodes))

    assert outcome.code == 6
    assert all(root in outcome.message for root in roots)


def test_a_prompt_longer_than_the_context_is_refused(
    odsi: Here, tiny: Path, nodes: tuple[Peer, Peer]
) -> None:
    outcome = generate(odsi, tiny, along(*nodes), f"--prompt={'x' * 65}")

    assert (outcome.code, outcome.message) == (2, "the prompt has 65 tokens, the model's context is 64")


@pytest.mark.parametrize("name", HOSTILE_TEMPLATES)
def test_a_hostile_chat_template_does_no_harm(odsi: Here, tmp_path: Path, name: str) -> None:
    write_tiny(tmp_path / "m.gguf", TinyShape(), chat_template=HOSTILE_TEMPLATES[name])

    outcome = generate(odsi, tmp_path / "m.gguf", "--local", "--chat")

    assert outcome.code == 4
    assert outcome.message.startswith(f"{tmp_path}/m.gguf: the chat template ")


def test_a_port_in_use_is_named(odsi: Here, tiny: Path, nodes: tuple[Peer, Peer]) -> None:
    listen = f"127.0.0.1:{nodes[0].port}"

    outcome = odsi("node", "--model", tiny, "--layers=0-1", "--ephemeral", "--listen", listen)

    assert outcome.code == 2
    assert outcome.message == f"can not listen on {listen}: Address already in use"


@pytest.mark.parametrize(
    ("arguments", "code", "reason"),
    [
        (["--ephemeral"], 2, "no layers: give --layers LO-HI"),
        (["--ephemeral", "--layers=3-1"], 2, "layers 3-1: expected LO-HI with 0 <= LO < HI"),
        (["--ephemeral", "--layers=0-4"], 4, "layers 0-4 asked for, the model has 3"),
        (["--ephemeral", "--layers=0-1", "--listen=4433"], 2, "'4433' is not an address to listen on"),
        (["--ephemeral", "--identity=x", "--layers=0-1"], 2, "--ephemeral excludes --identity"),
        (["--identity=/nonexistent/id.json", "--layers=0-1"], 3, "no identity file /nonexistent/id.json"),
        (["--ephemeral", "--config=/nonexistent.toml"], 2, "can not read /nonexistent.toml"),
        (["--ephemeral", "--layers=0-1", "--manifest=/nonexistent.json"], 4, "/nonexistent.json"),
    ],
)
def test_a_node_that_can_not_start_says_why(
    odsi: Here, tiny: Path, arguments: list[str], code: int, reason: str
) -> None:
    outcome = odsi("node", "--model", tiny, *arguments)

    assert outcome.code == code
    assert reason in outcome.message


def test_a_node_refuses_a_model_that_its_manifest_does_not_describe(
    odsi: Here, tmp_path: Path, tiny: Path
) -> None:
    write_tiny(tmp_path / "other.gguf", TinyShape(seed=1))
    odsi("model", "manifest", tiny, "--out", tmp_path / "m.json")

    outcome = odsi(
        *("node", "--model", tmp_path / "other.gguf", "--manifest", tmp_path / "m.json"),
        *("--layers=0-1", "--ephemeral"),
    )

    assert outcome.code == 4
    assert "has SHA-256 " in outcome.message
    assert "the manifest has " in outcome.message
