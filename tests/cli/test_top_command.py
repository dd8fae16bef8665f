"""``odsi top``: frames as people see them, and what it says where there is no node to see."""

import io
import json
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from cli.programs import Here, program
from docs.json_page import documented
from node.statuses import connection, history, request, status
from rich.console import Console

from odsi_proto.cli.running import RunningNode, announced, running_nodes
from odsi_proto.cli.top_view import frame, sparkline
from odsi_proto.node.status import NodeStatus, to_fields

FRAMES = Path(__file__).parents[1] / "data" / "top"
END_S_MAX = 10.0

EMPTY_HISTORY = type(history())(interval_us=1_000_000, rtt_us=(), queue_us=(), steps=(), late=(), busy_us=())

CASES: dict[str, tuple[NodeStatus, dict[str, object]]] = {
    "busy": (status(), {}),
    "idle": (
        status(
            **dict.fromkeys(("connections", "requests", "waiting", "sending"), ()),
            **dict.fromkeys(("waiting_steps", "sending_messages", "sending_bytes", "deadline_misses"), 0),
            steps={"done": 0},
            refusals={},
            history=EMPTY_HISTORY,
        ),
        {},
    ),
    "small_terminal": (
        status(
            connections=tuple(connection(seed) for seed in range(2, 12)),
            requests=tuple(request(number) for number in range(10)),
        ),
        {"height": 26},
    ),
    "gone": (status(is_draining=True), {"problem": "192.0.2.1:9464: Connection refused; trying again"}),
    "narrow": (status(), {"width": 80}),
    "ascii": (status(), {"is_unicode": False}),
    "hostile": (
        status(
            participant="\x1b[2J\n\t[bold]",
            model="[red]\x07",
            refusals={"\x1b]0;x\x07": 1},
            connections=(connection(2),),
        ),
        {},
    ),
}


def drawn(of: NodeStatus, *, width: int = 110, **how: object) -> str:
    """A frame as text."""
    console = Console(width=width, file=io.StringIO(), force_terminal=False, color_system=None)
    console.print(frame(of, width=width, **how))  # type: ignore[arg-type]  # the cases say what goes where
    assert isinstance(console.file, io.StringIO)
    return "\n".join(line.rstrip() for line in console.file.getvalue().splitlines()) + "\n"


@pytest.mark.parametrize("name", CASES)
def test_a_frame_is_as_it_was(name: str, request: pytest.FixtureRequest) -> None:
    of, how = CASES[name]
    golden = FRAMES / f"{name}.txt"
    if request.config.getoption("--rewrite"):
        golden.write_text(drawn(of, **how))

    assert drawn(of, **how) == golden.read_text()


def test_a_frame_fits_the_height_it_is_given() -> None:
    of, _ = CASES["small_terminal"]

    assert [drawn(of, height=height).count("\n") <= height for height in (26, 40, 80)] == [True] * 3


def test_the_tightest_is_first_whichever_queue_it_waits_in() -> None:
    lines = drawn(status()).partition("waiting, tightest first")[2].splitlines()[2:6]

    assert [line.split()[0] for line in lines] == ["-1.5", "4.2", "88.0", "none"]


@pytest.mark.parametrize(
    ("values", "drawing"),
    [((), ""), ((0, 0), "  "), ((1,), "█"), ((1, 8, 4, 0), "▁█▄ "), ((5, 5), "██"), ((-1, 1), " █")],
)
def test_a_sparkline_has_a_column_for_each_value(values: tuple[int, ...], drawing: str) -> None:
    assert sparkline(values) == drawing


@contextmanager
def answering(answer: bytes | Callable[[socket.socket], None]) -> Iterator[str]:
    """Somebody who answers every connection with ``answer``; the address."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                with connection:
                    if callable(answer):
                        answer(connection)
                    else:
                        connection.recv(4_096)
                        connection.sendall(answer)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield "{}:{}".format(*server.getsockname())
        server.shutdown(socket.SHUT_RDWR)
        thread.join(END_S_MAX)


def ok(body: bytes) -> bytes:
    return b"HTTP/1.0 200 OK\r\nContent-Type: application/json\r\n\r\n" + body


GOOD = ok(json.dumps(to_fields(status())).encode())


def test_one_frame_and_one_object(odsi: Here) -> None:
    with answering(GOOD) as address:
        frame_, object_ = odsi("top", address, "--once"), odsi("top", f"http://{address}/metrics", "--json")

    assert frame_.code == object_.code == 0
    assert "waiting, tightest first (5" in frame_.out
    (event,) = object_.events
    assert set(event) == documented("status") | {"event"}


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (b"", "is not an odsi node: it does not speak HTTP"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "is not an odsi node: it does not speak HTTP"),
        (b"HTTP/1.0 404 Not Found\r\n\r\n", "is not an odsi node: it answers 404 to /status"),
        (b"HTTP/1.0 503 Service Unavailable\r\n\r\n", "the node is busy"),
        (ok(b"<html>"), "is not an odsi node: its /status is not JSON"),
        (ok(b"[" * 100_000), "is not an odsi node: its /status is not JSON"),
        (ok(b"1" * 5_000), "is not an odsi node: its /status is not JSON"),
        (ok(b"{}"), "is not an odsi node of this version: status has no field participant"),
        (GOOD[:-50], "is not an odsi node: its /status is not JSON"),
    ],
)
def test_whoever_is_no_node_is_named_in_one_line(odsi: Here, answer: bytes, message: str) -> None:
    with answering(answer) as address:
        outcome = odsi("top", address)

    assert outcome.code == 5
    assert outcome.message.startswith(address)
    assert message in outcome.message


def test_who_answers_without_end_is_left(odsi: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    from odsi_proto.cli import top_run

    monkeypatch.setattr(top_run, "FETCH_S_MAX", 0.2)
    hold = threading.Event()

    def drip(connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.0 200 OK\r\nA: ")
        while not hold.wait(0.02):
            try:
                connection.sendall(b"x")
            except OSError:
                return

    with answering(drip) as address:
        outcome = odsi("top", address)
        hold.set()

    assert (outcome.code, outcome.message) == (5, f"{address}: no answer within 0.2 s")


def test_nobody_at_the_address_and_no_address_are_said(odsi: Here, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = "{}:{}".format(*server.getsockname())

    assert odsi("top", address).message == f"{address}: Connection refused"
    assert odsi("top", "nonsense").code == odsi("top", "127.0.0.1:0").code == 2
    assert odsi("top", "--interval=0").code == 2


def test_without_an_address_the_only_node_of_this_user_is_taken(
    odsi: Here, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    assert "no node of yours with metrics runs here" in odsi("top").message

    with answering(GOOD) as address:
        node = RunningNode(address=address, participant="p", layers="0-3")
        with announced(node, {"XDG_RUNTIME_DIR": str(tmp_path)}):
            assert odsi("top", "--once").code == 0
            (tmp_path / "odsi" / "1.json").write_text((next((tmp_path / "odsi").iterdir())).read_text())
            assert "2 nodes run here, give the ADDRESS of one" in odsi("top").message
    assert [file.name for file in (tmp_path / "odsi").iterdir()] == ["1.json"]


def test_only_living_nodes_in_a_folder_of_our_own_are_found(tmp_path: Path) -> None:
    environment = {"XDG_RUNTIME_DIR": str(tmp_path)}
    folder = tmp_path / "odsi"
    folder.mkdir(mode=0o700)
    (folder / "999999999.json").write_text("{}")
    (folder / "x.json").write_text("{}")
    (folder / "1.json").write_text('{"address": 1, "participant": [], "layers": {}}')
    assert running_nodes(environment) == ()
    assert [file.name for file in folder.iterdir()] == ["1.json"]

    folder.chmod(0o777)
    with announced(RunningNode(address="a", participant="b", layers="c"), environment):
        assert running_nodes(environment) == ()
        assert len(list(folder.iterdir())) == 1


def test_it_watches_a_node_through_its_end_and_ctrl_c_ends_it(tiny: Path, tmp_path: Path) -> None:
    environment = {"XDG_RUNTIME_DIR": str(tmp_path)}
    arguments = ("--model", tiny, "--layers=0-3", "--ephemeral", "--metrics=127.0.0.1:0", "--json")
    with program("node", *arguments, environment=environment) as node:
        address = node.event("ready")["metrics"]
        with program("top", "--json", "--interval=0.1", environment=environment) as running:
            assert running.event("status")["layers"] == "0-3"
            node.process.terminate()
            gone = running.event("unreachable")
            running.process.send_signal(signal.SIGINT)
            outcome = running.finish(END_S_MAX)

    assert gone["address"] == address
    assert outcome.code == 0
    assert "error" not in outcome.err
    assert list((tmp_path / "odsi").iterdir()) == []
