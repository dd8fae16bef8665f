"""UDP sockets of one QUIC endpoint, one per address family, drained in bursts."""

import asyncio
import socket
from collections.abc import Callable
from typing import TypeAlias

from odsi_proto.errors import ConfigError, PeerError

SocketAddress: TypeAlias = tuple[str, int] | tuple[str, int, int, int]
Receive: TypeAlias = Callable[[bytes, SocketAddress], None]

_BURST_MAX = 64
"""Datagrams taken per wake-up: one transmission answers a burst, and timers still get a turn."""

_BUFFER_BYTES = 4 << 20
"""Kernel buffers for a prompt's chunks; the kernel caps it where its limit is lower."""

_DATAGRAM_BYTES_MAX = 65_535


class UdpSockets:
    """Sends and receives datagrams; IPv4 and IPv6 each have a socket once one is needed."""

    def __init__(self, receive: Receive, burst_ended: Callable[[], None]) -> None:
        self._receive = receive
        self._burst_ended = burst_ended
        self._loop = asyncio.get_running_loop()
        self._sockets: dict[int, socket.socket] = {}

    async def bind(self, host: str, port: int) -> tuple[str, int]:
        """Listen on ``host``; port 0 lets the system choose. Raises ``ConfigError``."""
        try:
            family, address = await self._resolve(host, port)
            bound = self._open(family, address)
        except (OSError, UnicodeError) as error:
            raise ConfigError(f"can not listen on {host}:{port}: {_why(error)}") from error
        return bound.getsockname()[0], bound.getsockname()[1]

    async def resolve(self, host: str, port: int) -> SocketAddress:
        """The address to dial; opens a socket of its family if there is none. Raises ``PeerError``."""
        try:
            family, address = await self._resolve(host, port)
            if family not in self._sockets:
                self._open(family, ("::", 0, 0, 0) if family == socket.AF_INET6 else ("0.0.0.0", 0))
        except (OSError, UnicodeError) as error:
            raise PeerError(f"{host}:{port}: {_why(error)}") from error
        return address

    def send(self, datagram: bytes, address: SocketAddress) -> None:
        """Send one datagram; a full buffer or an unreachable host is a loss that QUIC repairs."""
        family = socket.AF_INET6 if len(address) == 4 else socket.AF_INET
        try:
            self._sockets[family].sendto(datagram, address)
        except OSError:
            return

    def close(self) -> None:
        """Close every socket."""
        for udp in self._sockets.values():
            self._loop.remove_reader(udp)
            udp.close()
        self._sockets.clear()

    async def _resolve(self, host: str, port: int) -> tuple[int, SocketAddress]:
        found = await self._loop.getaddrinfo(host, port, type=socket.SOCK_DGRAM)
        family, _, _, _, address = found[0]
        return family, address  # type: ignore[return-value]  # typeshed allows other families here

    def _open(self, family: int, address: SocketAddress) -> socket.socket:
        udp = socket.socket(family, socket.SOCK_DGRAM)
        try:
            udp.setblocking(False)
            for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
                udp.setsockopt(socket.SOL_SOCKET, option, _BUFFER_BYTES)
            udp.bind(address)
        except OSError:
            udp.close()
            raise
        self._sockets[family] = udp
        self._loop.add_reader(udp, self._readable, udp)
        return udp

    def _readable(self, udp: socket.socket) -> None:
        for _ in range(_BURST_MAX):
            try:
                datagram, address = udp.recvfrom(_DATAGRAM_BYTES_MAX)
            except (BlockingIOError, InterruptedError):
                break
            except OSError:
                continue  # an ICMP error of an earlier datagram
            self._receive(datagram, address)
        self._burst_ended()


def _why(error: OSError | UnicodeError) -> str:
    """A host name that is too long, or has an empty label, is a ``UnicodeError`` to Python."""
    if isinstance(error, OSError):
        return error.strerror or str(error)
    return "not a host name"
