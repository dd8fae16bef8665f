"""A UDP relay on loopback between real endpoints: counts datagrams, loses and delays some by seed.

Loopback only. The relay is what a dialler is given in place of the listener's address; each
dialler's address gets its own socket towards the listener, as a NAT would give it.
"""

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

Address = tuple[str, int]


@dataclass(frozen=True, slots=True)
class Datagram:
    """One datagram that reached the relay."""

    towards_listener: bool
    size: int
    lost: bool


class UdpRelay:
    """``async with UdpRelay(target) as relay``, then dial ``relay.address``."""

    def __init__(self, target: Address, *, loss: float = 0.0, delay_s: float = 0.0, seed: int = 0) -> None:
        """Lose each datagram with probability ``loss`` and hold the others for ``delay_s``."""
        self.target = target
        self.datagrams: list[Datagram] = []
        """Everything that came, in order."""
        self._loss = loss
        self._delay_s = delay_s
        self._random = random.Random(seed)
        self._loop = asyncio.get_running_loop()
        self._outward: dict[Address, asyncio.DatagramTransport] = {}
        self._opening: set[asyncio.Task[None]] = set()

    @property
    def address(self) -> Address:
        """Where the relay listens."""
        name: Address = self._front.get_extra_info("sockname")
        return name

    async def __aenter__(self) -> Self:
        self._front, _ = await self._loop.create_datagram_endpoint(
            lambda: _Side(self._from_dialler), local_addr=("127.0.0.1", 0)
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for task in self._opening:
            task.cancel()
        for transport in (self._front, *self._outward.values()):
            transport.close()
        await asyncio.sleep(0)

    def _from_dialler(self, data: bytes, source: Address) -> None:
        outward = self._outward.get(source)
        if outward is None:
            task = self._loop.create_task(self._open_outward(source, data))
            self._opening.add(task)
            task.add_done_callback(self._opening.discard)
            return
        self._pass(outward, data, None, towards_listener=True)

    async def _open_outward(self, source: Address, first: bytes) -> None:
        def back(data: bytes, _: Address) -> None:
            self._pass(self._front, data, source, towards_listener=False)

        outward, _ = await self._loop.create_datagram_endpoint(lambda: _Side(back), remote_addr=self.target)
        self._outward[source] = outward
        self._pass(outward, first, None, towards_listener=True)

    def _pass(
        self, out: asyncio.DatagramTransport, data: bytes, to: Address | None, *, towards_listener: bool
    ) -> None:
        lost = self._random.random() < self._loss
        self.datagrams.append(Datagram(towards_listener, len(data), lost))
        if lost:
            return
        if self._delay_s:
            self._loop.call_later(self._delay_s, _send, out, data, to)
        else:
            _send(out, data, to)


def _send(out: asyncio.DatagramTransport, data: bytes, to: Address | None) -> None:
    if not out.is_closing():
        out.sendto(data, to)


class _Side(asyncio.DatagramProtocol):
    def __init__(self, receive: Callable[[bytes, Address], None]) -> None:
        self._receive = receive

    def datagram_received(self, data: bytes, addr: tuple[str | Any, int]) -> None:
        self._receive(data, addr)
