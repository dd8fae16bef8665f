"""``GET /metrics`` and ``GET /status`` over HTTP, beside the event loop and never in its way.

The standard library parses and answers in threads of its own. From the loop it takes one snapshot a
request, and that at most ten times a second; text is made outside. A reader is bounded in what it may
send, in how long it may take, and in how many there are at once; the rest is told to come again.
"""

import asyncio
import io
import json
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, HTTPServer
from socketserver import TCPServer, ThreadingMixIn
from typing import Any

import structlog

from odsi_proto.errors import ConfigError
from odsi_proto.node.metrics import exposition
from odsi_proto.node.status import to_fields
from odsi_proto.node.vitals import Snapshot

log = structlog.get_logger(__name__)

READERS_MAX = 8
"""At once: two scrapers, a few terminals, and some that never finish."""

REQUEST_BYTES_MAX = 8_192
"""A scraper's request has 400 bytes."""

REQUEST_S_MAX = 5.0
"""From accept to the last byte of the answer; half of Prometheus's own limit."""

SNAPSHOT_S_MAX = 2.0
"""For the event loop to answer: it computes for 10 ms at most, so a longer silence is a fault to show."""

SNAPSHOT_AGE_S_MAX = 0.1
"""Who asks more often gets the same again: readers can not keep the loop busy."""

_FULL = b"HTTP/1.0 503 Service Unavailable\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
"""What one reader too many gets."""

_POLL_S = 0.1
"""How soon the accepting thread notices that it shall end."""

TakeSnapshot = Callable[[], Snapshot]


class MetricsServer:
    """Serves a node's snapshots until :meth:`stop`."""

    def __init__(self, host: str, port: int, take: TakeSnapshot) -> None:
        """Listen, or raise ``ConfigError``; ``take`` is called in the event loop that runs now."""
        self._source = _Source(take)
        try:
            family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
            self._server = _Server(family, (str(address[0]), int(address[1])), self._source)
        except (OSError, UnicodeError) as error:
            why = (error.strerror or str(error)) if isinstance(error, OSError) else "not a host name"
            raise ConfigError(f"can not serve metrics on {host}:{port}: {why}") from error
        self.address: tuple[str, int] = self._server.server_address[:2]  # type: ignore[assignment]  # both are inet
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(_POLL_S,), name="odsi-metrics", daemon=True
        )
        self._thread.start()

    def stop(self) -> None:
        """Listen no more; blocks for up to a tenth of a second. Answers under way are cut off."""
        self._server.shutdown()
        self._server.server_close()


class _Source:
    """Snapshots from the event loop, for other threads."""

    def __init__(self, take: TakeSnapshot) -> None:
        self._take = take
        self._loop = asyncio.get_running_loop()
        self._lock = threading.Lock()
        self._last: tuple[float, Snapshot] | None = None

    def snapshot(self) -> Snapshot | None:
        """One that is fresh, or None if the loop does not answer in time."""
        with self._lock:
            if self._last is not None and time.monotonic() - self._last[0] < SNAPSHOT_AGE_S_MAX:
                return self._last[1]
            future: Future[Snapshot] = Future()
            try:
                self._loop.call_soon_threadsafe(self._answer, future)
                taken = future.result(SNAPSHOT_S_MAX)
            except (TimeoutError, RuntimeError):  # the loop is busy, or has ended
                return None
            self._last = (time.monotonic(), taken)
            return taken

    def _answer(self, future: "Future[Snapshot]") -> None:
        try:
            future.set_result(self._take())
        except Exception as error:  # it is the reader's thread that reports it
            future.set_exception(error)


class _Server(ThreadingMixIn, HTTPServer):
    daemon_threads = True
    block_on_close = False
    allow_reuse_address = True
    request_queue_size = 4 * READERS_MAX
    """Whom the kernel holds for us; the parent's 5 make a sixth wait for a second."""

    def __init__(self, family: int, address: tuple[str, int], source: _Source) -> None:
        self.address_family = family
        self.source = source
        self._slots = threading.BoundedSemaphore(READERS_MAX)
        super().__init__(address, _Handler)

    def server_bind(self) -> None:
        """Without the parent's look-up of a host name, which may take as long as it likes."""
        TCPServer.server_bind(self)

    def process_request(self, request: Any, client_address: Any) -> None:
        """In a thread of its own, if there is room."""
        if self._slots.acquire(blocking=False):
            super().process_request(request, client_address)
            return
        with suppress(OSError):
            request.settimeout(0)
            request.send(_FULL)
        self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """The parent's, and the place is free again."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._slots.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A reader that went away is its own affair; anything else is a bug of ours."""
        if not isinstance(sys.exception(), OSError):
            log.error("bug", peer=str(client_address[0]), traceback=traceback.format_exc())


class _BoundedReader(io.RawIOBase):
    """What a reader sends: so many bytes, until then."""

    def __init__(self, connection: socket.socket, deadline_s: float) -> None:
        self._connection = connection
        self._deadline_s = deadline_s
        self._left_bytes = REQUEST_BYTES_MAX

    def readable(self) -> bool:
        """It is."""
        return True

    def readinto(self, buffer: Any) -> int:
        """The next bytes; 0 where there may be no more. Raises ``TimeoutError``."""
        view = memoryview(buffer)[: self._left_bytes]
        if not view:
            return 0
        self._connection.settimeout(_left_s(self._deadline_s))
        count = self._connection.recv_into(view)
        self._left_bytes -= count
        return count


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    error_message_format = "%(code)d %(message)s\n"
    error_content_type = "text/plain; charset=utf-8"

    def setup(self) -> None:
        """As the parent, with both ends bounded."""
        self._deadline_s = time.monotonic() + REQUEST_S_MAX
        self.connection = self.request
        self.rfile = io.BufferedReader(_BoundedReader(self.connection, self._deadline_s))
        self.wfile = io.BytesIO()  # handed over at once, at the end

    def finish(self) -> None:
        """Send the answer."""
        answer = self.wfile.getvalue()  # type: ignore[attr-defined]  # a BytesIO, see above
        if answer:
            self.connection.settimeout(_left_s(self._deadline_s))
            self.connection.sendall(answer)  # its time-out is that of the whole

    def do_GET(self) -> None:
        """Answer."""
        path = self.path.partition("?")[0]
        if path not in ("/metrics", "/status"):
            self.send_error(HTTPStatus.NOT_FOUND, "there are /metrics and /status")
            return
        snapshot = self.server.source.snapshot()
        if snapshot is None:
            self.send_error(HTTPStatus.SERVICE_UNAVAILABLE, "the node is busy or ending")
            return
        if path == "/metrics":
            body, content_type = exposition(snapshot, self.headers.get("Accept", ""))
        else:
            fields = {"event": "status", **to_fields(snapshot.status)}
            body, content_type = f"{json.dumps(fields)}\n".encode(), "application/json"
        self.send_response(HTTPStatus.OK)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    do_HEAD = do_GET  # noqa: N815

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """A short answer; what the parent says quotes the request."""
        own = code in (HTTPStatus.NOT_FOUND, HTTPStatus.SERVICE_UNAVAILABLE)
        super().send_error(code, message if own else None)

    def version_string(self) -> str:
        """No versions of the interpreter for strangers."""
        return "odsi"

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the parent's name
        """Readers are no events."""


def _left_s(deadline_s: float) -> float:
    left_s = deadline_s - time.monotonic()
    if left_s <= 0:
        raise TimeoutError
    return left_s
