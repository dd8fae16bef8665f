"""``odsi node`` as a program: its settings file, its announcement, its orderly end."""

import json
import signal
import subprocess
import sys
from pathlib import Path

from cli.programs import Here, Program, program

from odsi_proto.routing.path import Peer
from odsi_proto.units import LayerRange

END_S_MAX = 5.0


def test_a_settings_file_makes_a_node_that_sigterm_ends_in_order(
    odsi: Here, tiny: Path, tmp_path: Path
) -> None:
    odsi("identity", "new", "--out", tmp_path / "id.json")
    (identity,) = odsi("identity", "show", tmp_path / "id.json", "--json").events
    (manifest,) = odsi("model", "manifest", tiny, "--out", tmp_path / "m.json", "--json").events
    (tmp_path / "node.toml").write_text(
        f'model = "{tiny}"\nmanifest = "m.json"\nidentity = "id.json"\nlayers = "0-1"\nkv-mib = 16\n'
    )

    with program("node", "--config", tmp_path / "node.toml", "--layers=1-3", "--json") as running:
        ready = running.event("ready")
        running.process.terminate()
        outcome = running.finish(END_S_MAX)

    assert ready["participant"] == identity["participant"]
    assert ready["layers"] == "1-3"  # flags win
    assert ready["model_root"] == manifest["model_root"]
    peer = Peer.parse(ready["peer"])
    assert (peer.host, peer.port, peer.layers) == (ready["host"], ready["port"], LayerRange(1, 3))
    assert outcome.code == 0, outcome.err
    assert outcome.events == [{"event": "stopped", "reason": "SIGTERM"}]


def test_people_get_the_line_to_hand_to_others_and_end_it_with_ctrl_c(tiny: Path) -> None:
    with program("node", "--model", tiny, "--layers=0-3", "--ephemeral") as running:
        assert running.process.stdout is not None
        first, second = (running.process.stdout.readline() for _ in range(2))
        running.process.send_signal(signal.SIGINT)
        outcome = running.finish(END_S_MAX)

    assert first.startswith("serving layers 0-3 of tiny.gguf on 127.0.0.1:")
    assert Peer.parse(second).layers == LayerRange(0, 3)
    assert (outcome.code, outcome.message) == (130, "interrupted")


def test_a_supervised_node_ends_with_its_standard_input(tiny: Path) -> None:
    command = [sys.executable, "-m", "odsi_proto.cli", "node", "--supervised", "--ephemeral", "--json"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdin is not None
            process.stdin.write(f'model = "{tiny}"\nlayers = "0-3"\n\n')
            process.stdin.flush()
            Program(process, "").event("ready")
            process.stdin.close()

            assert process.wait(END_S_MAX) == 0
        finally:
            process.kill()


def log_lines(arguments: str, *, peer: str = "a") -> list[str]:
    """Standard error of a process that logs one event of each of two levels."""
    script = (
        "import structlog\nfrom odsi_proto.cli.logs import configure_logs\n"
        f"configure_logs({arguments})\n"
        f"structlog.get_logger('x').info('quiet', peer={peer!r})\n"
        f"structlog.get_logger('x').warning('loud', peer={peer!r})\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == ""
    return done.stderr.splitlines()


def test_log_events_are_objects_where_the_output_is() -> None:
    (line,) = log_lines("'warning', as_json=True")

    event = json.loads(line)
    assert (event["event"], event["level"], event["peer"]) == ("loud", "warning", "a")


def test_people_get_log_events_of_the_level_they_ask_for() -> None:
    quiet, loud = log_lines("'info', as_json=False")

    assert "quiet peer=a" in quiet
    assert "loud peer=a" in loud


def test_what_a_peer_said_can_not_control_the_terminal_through_the_log() -> None:
    (line,) = log_lines("'warning', as_json=False", peer="\x1b[2J")

    assert "peer=\ufffd[2J" in line
