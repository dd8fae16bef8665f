"""The metrics server and who reads from it: scrapers, and those that only hold it up."""

import asyncio
import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass

import pytest
from node.statuses import snapshot, status

from odsi_proto.errors import ConfigError
from odsi_proto.node import metrics_server
from odsi_proto.node.metrics_server import READERS_MAX, REQUEST_BYTES_MAX, MetricsServer
from odsi_proto.node.status import read_status
from odsi_proto.node.vitals import Snapshot

END_S_MAX = 10.0


@dataclass
class Served:
    """A server, and the event loop of its node, which runs in a thread of its own."""

    address: tuple[str, int]
    loop: asyncio.AbstractEventLoop
    taken: list[int]
    """One entry for each snapshot that the loop has given."""

    def connect(self) -> socket.socket:
        return socket.create_connection(self.address, timeout=END_S_MAX)

    def ask(self, request: bytes) -> bytes:
        """Send all of it, and read to the end; b"" if the other side has had enough."""
        with self.connect() as connection:
            try:
                connection.sendall(request)
                connection.shutdown(socket.SHUT_WR)
                return rest_of(connection)
            except TimeoutError:
                raise
            except OSError:
                return b""

    def get(self, path: str) -> tuple[bytes, bytes]:
        """The head and the body of an answer."""
        head, _, body = self.ask(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode()).partition(b"\r\n\r\n")
        return head, body


def rest_of(connection: socket.socket) -> bytes:
    return b"".join(iter(lambda: connection.recv(1 << 16), b""))


def received_bytes(connection: socket.socket) -> int:
    """How much comes before the end, or before the other side gives up."""
    count = 0
    with suppress(ConnectionResetError):
        while piece := connection.recv(1 << 20):
            count += len(piece)
    return count


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    monkeypatch.setattr(metrics_server, "REQUEST_S_MAX", 0.3)
    monkeypatch.setattr(metrics_server, "SNAPSHOT_S_MAX", 0.1)
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    taken: list[int] = []

    def take() -> Snapshot:
        assert threading.current_thread() is thread
        taken.append(1)
        return snapshot()

    async def start() -> MetricsServer:
        return MetricsServer("127.0.0.1", 0, take)

    server = asyncio.run_coroutine_threadsafe(start(), loop).result(END_S_MAX)
    yield Served(server.address, loop, taken)
    server.stop()
    loop.call_soon_threadsafe(loop.stop)
    thread.join(END_S_MAX)
    loop.close()


def test_a_scraper_gets_metrics_and_a_program_the_status(served: Served) -> None:
    head, body = served.get("/metrics?name[]=ignored")
    assert head.startswith(b"HTTP/1.0 200 OK")
    assert b"text/plain; version=0.0.4" in head
    assert b"odsi_steps_total" in body

    head, body = served.get("/status")
    assert b"application/json" in head
    assert json.loads(body)["event"] == "status"
    assert read_status(json.loads(body)) == status()


def test_a_head_has_the_length_and_no_body(served: Served) -> None:
    head, body = served.get("/status")

    assert served.ask(b"HEAD /status HTTP/1.0\r\n\r\n").splitlines()[3:5] == head.splitlines()[3:5]
    assert b"Content-Length: %d" % len(body) in head


@pytest.mark.parametrize(
    ("request_", "answer"),
    [
        (b"GET /other HTTP/1.0\r\n\r\n", b"404 there are /metrics and /status\n"),
        (b"POST /metrics HTTP/1.0\r\nContent-Length: 3\r\n\r\nabc", b"501 Not Implemented\n"),
        (b"GET /status HTTP/9.9\r\n\r\n", b"505 HTTP Version Not Supported\n"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\r\n\r\n", b"400 Bad Request\n"),
        (b"GET <b>\x1b[2J HTTP/1.0 more words\r\n\r\n", b"400 Bad Request\n"),
        (b"GET /status HTTP/1.0\r\n" + b"A: b\r\n" * 101 + b"\r\n", b"431 Request Header Fields Too Large\n"),
    ],
)
def test_a_bad_request_gets_a_short_answer_that_quotes_nothing(
    served: Served, request_: bytes, answer: bytes
) -> None:
    got = served.ask(request_)

    assert got.endswith(answer)
    assert len(got) < 300
    assert not served.taken


@pytest.mark.parametrize(
    "request_",
    [
        b"GET /" + b"x" * (REQUEST_BYTES_MAX + 1) + b" HTTP/1.0\r\n\r\n",
        b"A" * (4 << 20),
        b"GET /status HTTP/1.0\r\n" + b"A: " + b"b" * (1 << 20),
        b"",
        b"\r\n" * 2_000,
    ],
)
def test_too_much_is_not_read(served: Served, request_: bytes) -> None:
    assert len(served.ask(request_)) < 20_000

    assert served.get("/status")[0].startswith(b"HTTP/1.0 200 OK")


def test_who_says_nothing_is_left_after_a_while(served: Served) -> None:
    with served.connect() as silent, served.connect() as slow:
        slow.sendall(b"GET /status HTTP/1.0\r\nA: ")  # and never the end

        assert (rest_of(silent), rest_of(slow)) == (b"", b"")


def test_who_does_not_read_is_left_after_a_while(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics_server, "exposition", lambda *_: (bytes(64 << 20), "text/plain"))
    with served.connect() as deaf:
        deaf.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
        wait_until(lambda: served.taken)
        assert len(served.get("/status")[1]) > 1_000

        wait_until(lambda: not any("process_request" in thread.name for thread in threading.enumerate()))
        assert received_bytes(deaf) < 64 << 20


def test_more_readers_than_places_are_told_to_come_again(served: Served) -> None:
    with ExitStack() as stack:
        for _ in range(READERS_MAX):
            stack.enter_context(served.connect())

        assert served.ask(b"GET /status HTTP/1.0\r\n\r\n").startswith(b"HTTP/1.0 503")
    wait_until(lambda: served.get("/status")[0].startswith(b"HTTP/1.0 200"))


def test_many_readers_cost_the_loop_one_snapshot(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics_server, "SNAPSHOT_AGE_S_MAX", END_S_MAX)
    for _ in range(20):
        assert served.get("/status")[1]

    assert len(served.taken) == 1


def test_a_loop_that_is_held_up_is_an_answer_of_its_own(served: Served) -> None:
    release = threading.Event()
    served.loop.call_soon_threadsafe(release.wait, END_S_MAX)

    head, body = served.get("/status")
    release.set()

    assert head.startswith(b"HTTP/1.0 503")
    assert body == b"503 the node is busy or ending\n"


def test_an_address_in_use_and_a_host_that_is_none_are_said_at_once(served: Served) -> None:
    async def serve(host: str, port: int) -> None:
        MetricsServer(host, port, snapshot)

    with pytest.raises(ConfigError, match=r"metrics on 127\.0\.0\.1:\d+: Address already in use"):
        asyncio.run(serve(*served.address))
    with pytest.raises(ConfigError, match=r"metrics on 192\.0\.2\.1:0: "):
        asyncio.run(serve("192.0.2.1", 0))
    with pytest.raises(ConfigError, match="not a host name"):
        asyncio.run(serve("a..b", 0))


def wait_until(condition: Callable[[], object]) -> None:
    """Ask again until it holds, within a ceiling."""
    pause = threading.Event()
    for _ in range(int(END_S_MAX / 0.01)):
        if condition():
            return
        pause.wait(0.01)
    raise AssertionError("it never came")
