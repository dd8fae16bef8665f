"""Fetches a node's status again and again and shows it; the part of ``odsi top`` that meets the network.

Whoever answers may be anybody, so an answer is bounded in bytes and time and read field by field.
"""

import io
import json
import socket
import sys
import time
from http.client import HTTPException, HTTPResponse
from typing import Any

from rich.console import Console
from rich.live import Live

from odsi_proto.cli.output import Output, printable
from odsi_proto.cli.top_view import frame
from odsi_proto.errors import ConfigError, PeerError
from odsi_proto.node.settings import Listen
from odsi_proto.node.status import NodeStatus, read_status, to_fields

FETCH_S_MAX = 3.0
"""A node that takes longer for two kilobytes is as good as gone."""

ANSWER_BYTES_MAX = 4 << 20
"""256 connections and 64 requests have a quarter of a megabyte."""

WIDTH = 100
"""Of a frame that goes to no terminal."""


def fetch(where: Listen) -> NodeStatus:
    """The node's status; ``PeerError`` if nobody answers or it is no node."""
    label = _label(where)
    try:
        raw = _get(where)
        response = HTTPResponse(_Received(raw))  # type: ignore[arg-type]  # it only takes a file of it
        response.begin()
        body = response.read(ANSWER_BYTES_MAX)
    except (HTTPException, ValueError) as error:  # first: an empty answer is both this and an OSError
        raise PeerError(f"{label} is not an odsi node: it does not speak HTTP") from error
    except TimeoutError as error:
        raise PeerError(f"{label}: no answer within {FETCH_S_MAX:g} s") from error
    except OSError as error:
        raise PeerError(f"{label}: {error.strerror or error}") from error
    if response.status == 503:
        raise PeerError(f"{label}: the node is busy: it did not give its status in time")
    if response.status != 200:
        raise PeerError(f"{label} is not an odsi node: it answers {response.status} to /status")
    try:
        return read_status(json.loads(body))
    except (ValueError, RecursionError) as error:
        raise PeerError(f"{label} is not an odsi node: its /status is not JSON") from error
    except ConfigError as error:
        raise PeerError(f"{label} is not an odsi node of this version: {error}") from error


def show_once(where: Listen, output: Output) -> None:
    """One frame, or one object."""
    _show(fetch(where), output)


def watch(where: Listen, output: Output, *, interval_s: float) -> None:
    """A frame for each interval until Ctrl-C, which is the orderly end; connects again meanwhile."""
    status = fetch(where)  # one that is not there at all is an error
    try:
        if output.as_json or not sys.stdout.isatty():
            _watch_plainly(status, where, output, interval_s)
        else:
            _watch_live(status, where, interval_s)
    except KeyboardInterrupt:
        output.close_line()


def _watch_live(status: NodeStatus, where: Listen, interval_s: float) -> None:
    console = Console()
    is_unicode = console.encoding.startswith("utf")
    problem = ""
    # The alternate screen: when it ends, the terminal is as it was.
    with Live(console=console, screen=True, auto_refresh=False, redirect_stderr=False) as live:
        while True:
            shown = frame(
                status,
                width=console.width,
                height=console.height,
                problem=printable(problem),
                is_unicode=is_unicode,
            )
            live.update(shown, refresh=True)
            time.sleep(interval_s)
            try:
                status, problem = fetch(where), ""
            except PeerError as error:
                problem = f"{error}; trying again"


def _watch_plainly(status: NodeStatus, where: Listen, output: Output, interval_s: float) -> None:
    _show(status, output)
    is_gone = False
    while True:
        time.sleep(interval_s)
        try:
            status = fetch(where)
        except PeerError as error:
            output.emit("unreachable", {"address": _label(where), "reason": printable(str(error))})
            if not is_gone:
                output.note(f"{error}; trying again")
            is_gone = True
            continue
        is_gone = False
        _show(status, output, after_another=True)


def _show(status: NodeStatus, output: Output, *, after_another: bool = False) -> None:
    if output.as_json:
        output.emit("status", to_fields(status))
        return
    console = Console(width=None if sys.stdout.isatty() else WIDTH)
    with console.capture() as captured:  # rich would end the program itself on a closed pipe
        if after_another:
            console.print()
        console.print(frame(status, width=console.width, is_unicode=console.encoding.startswith("utf")))
    sys.stdout.write(captured.get())
    sys.stdout.flush()


def _get(where: Listen) -> bytes:
    """All that comes back, the head of the answer included."""
    deadline_s = time.monotonic() + FETCH_S_MAX
    request = f"GET /status HTTP/1.0\r\nHost: {_label(where)}\r\nAccept: application/json\r\n\r\n"
    with socket.create_connection((where.host, where.port), timeout=FETCH_S_MAX) as connection:
        connection.sendall(request.encode("idna" if not request.isascii() else "ascii"))
        received = bytearray()
        while len(received) < ANSWER_BYTES_MAX:
            left_s = deadline_s - time.monotonic()
            if left_s <= 0:
                raise TimeoutError
            connection.settimeout(left_s)
            piece = connection.recv(1 << 16)
            if not piece:
                break
            received += piece
    return bytes(received)


class _Received:
    """What the standard library's reader of answers takes for a socket."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def makefile(self, *_: Any, **__: Any) -> io.BytesIO:
        """The bytes, as a file."""
        return io.BytesIO(self._data)


def _label(where: Listen) -> str:
    return f"[{where.host}]:{where.port}" if ":" in where.host else f"{where.host}:{where.port}"
