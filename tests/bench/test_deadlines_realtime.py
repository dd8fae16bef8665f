"""What the real-time part of the deadline benchmark does without a clock."""

import json
import os
import socket
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).resolve().parents[2]))  # bench is no part of the installation

from bench.deadlines.messages import ACTIVATION, message
from bench.deadlines.realtime import main as command
from bench.deadlines.realtime.channel import Channel
from bench.deadlines.realtime.contenders import BASE, CONTENDERS
from bench.deadlines.realtime.endpoint import KINDS
from bench.deadlines.realtime.judge import judge
from bench.deadlines.realtime.rounds import RealOutcome
from bench.deadlines.realtime.traffic import Arrivals
from bench.deadlines.scenario import Scenario
from odsi_proto.errors import ConfigError

OUTCOME = RealOutcome(
    activations=100,
    misses=3,
    undelivered=0,
    p50_ms=20.0,
    p99_ms=40.0,
    max_ms=50.0,
    bulk_mbit=15.0,
    bulk_share=0.96,
    packets=1000,
    dropped_packets=10,
    queue_p50_ms=5.0,
    queue_p99_ms=10.0,
    relay_late_p99_ms=0.2,
)


@pytest.fixture
def ends() -> Iterator[tuple[Channel, socket.socket]]:
    ours, theirs = socket.socketpair()
    with theirs:
        channel = Channel(ours)
        yield channel, theirs
        channel.close()


def test_a_run_is_judged_on_what_was_sent_after_its_first_part() -> None:
    scenario = Scenario(group="test", duration_s=1, start_s=0.5, period_ms=100)
    sent_ns = [number * 100_000_000 for number in range(10)]
    # 5 to 8 are judged: two in time, one late, one that did not come. 4 is of the first part, and the
    # deadline of 9 is after the run.
    arrived = [(4, 450_000_000), (5, 520_000_000), (6, 620_000_000), (8, 831_000_000)]
    bulk = [(bucket, 125_000) for bucket in range(10)]

    found = judge(scenario, sent_ns, arrived, bulk)

    assert (found.activations, found.misses, found.undelivered) == (4, 2, 1)
    assert found.latencies_ms == [20.0, 20.0, 31.0, 200.0]
    assert found.bulk_mbit == pytest.approx(10.0)


def test_arrivals_know_whole_activations_and_all_bytes_of_bulk() -> None:
    arrivals = Arrivals()
    arrivals.stream_data(2, message(ACTIVATION, 7, 100)[:50], is_end=False)
    arrivals.stream_data(6, message(1, 0, 1000)[:600], is_end=False)
    assert not arrivals.at_ns

    arrivals.stream_data(2, message(ACTIVATION, 7, 100)[50:], is_end=True)
    arrivals.message(message(ACTIVATION, 8, 100))

    assert set(arrivals.at_ns) == {7, 8}
    assert sum(arrivals.bulk_bytes.values()) == 600


def test_a_file_and_then_objects_come_over_a_channel(ends: tuple[Channel, socket.socket]) -> None:
    channel, child = ends
    with Path(os.devnull).open("rb") as file:
        socket.send_fds(child, [b"\n"], [file.fileno()])
        child.sendall(b'{"ready": true}\n')

        os.close(channel.receive_file())

    assert channel.hear() == {"ready": True}


@pytest.mark.parametrize("hear", [Channel.receive_file, Channel.hear])
def test_what_a_child_says_went_wrong_is_the_error(ends: tuple[Channel, socket.socket], hear: object) -> None:
    channel, child = ends
    child.sendall(json.dumps({"error": "no TCP with vegas here"}).encode() + b"\n")

    with pytest.raises(ConfigError, match="no TCP with vegas here"):
        hear(channel)  # type: ignore[operator]


@pytest.mark.parametrize("hear", [Channel.receive_file, Channel.hear])
def test_a_child_that_is_gone_is_an_error(ends: tuple[Channel, socket.socket], hear: object) -> None:
    channel, child = ends
    child.close()

    with pytest.raises(ConfigError, match="ended early"):
        hear(channel)  # type: ignore[operator]


def test_every_contender_has_two_sides_to_run() -> None:
    assert {contender.kind for contender in CONTENDERS.values()} == set(KINDS)


def test_ratios_are_within_a_round_and_what_can_not_be_had_has_its_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run_once(scenario: Scenario, contender: object) -> RealOutcome:
        if contender is CONTENDERS["grpc-stream"]:
            raise ConfigError("gRPC is missing")
        # The base takes 20 ms in the first round and 40 in the second, the other a half and a quarter.
        return replace(OUTCOME, p50_ms=20.0 * scenario.seed if contender is CONTENDERS[BASE] else 10.0)

    monkeypatch.setattr(command, "run_once", run_once)
    found = tmp_path / "found.json"
    names = f"--transports=stock-reno,grpc-stream,{BASE}"

    assert command.main([names, "--rounds=2", "--elsewhere=1", f"--json={found}"]) == 0

    out = capsys.readouterr().out
    (row,) = (line for line in out.splitlines() if "stock-reno" in line and "│" in line)
    assert [cell.strip() for cell in row.split("│")[2:11]] == [
        *["3.00%", "10.0", "10.0", "10.0", "40.0", "50.0"],
        *["0.38", "0.25", "0.50"],
    ]
    assert "not measured: gRPC is missing" in out
    content = json.loads(found.read_text())
    assert content["not_measured"] == {"grpc-stream": "gRPC is missing"}
    assert [len(run["rounds"]) for run in content["runs"]] == [2, 2]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--rounds=0"], "0 rounds asked for, expected at least 1"),
        (["--transports=carrier-pigeon"], "no transport 'carrier-pigeon'"),
        (["--elsewhere=few"], "--elsewhere 'few': expected numbers"),
        (["--duration=1"], "a run of 1 s is too short"),
        (["--json=/nowhere/found.json"], "/nowhere/found.json: no such folder"),
    ],
)
def test_what_can_not_be_done_is_one_line(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command.main(arguments) == 2

    error = capsys.readouterr().err
    assert error.startswith(f"bench.deadlines.realtime: error: {message}")
    assert error.count("\n") == 1
