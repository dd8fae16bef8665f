"""A process of a run, in a network of its own: ``python -m bench.deadlines.realtime.endpoint FD``.

It is told what to be over the Unix socket with that number, hands back its TUN device, says that it is
ready, and ends when the socket does.
"""

import asyncio
import json
import os
import socket
import sys
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

from bench.deadlines.realtime.grpc_tcp import GrpcReceiver, GrpcSender
from bench.deadlines.realtime.namespace import enter, send_file
from bench.deadlines.realtime.quic_ours import OurReceiver, OurSender
from bench.deadlines.realtime.quic_stock import StockReceiver, StockSender
from bench.deadlines.realtime.traffic import Arrivals, Receiver, Sender, send_activations
from odsi_proto.errors import OdsiError

SENDER_ADDRESS, RECEIVER_ADDRESS = "10.77.0.1", "10.77.0.2"


class Kind(NamedTuple):
    """A transport's two sides."""

    sender: Callable[[dict[str, Any]], Sender]
    receiver: Callable[[dict[str, Any]], Receiver]


def _quic(kind: Callable[[str], Any], told: dict[str, Any]) -> Any:
    return kind(told["congestion"])


KINDS = {
    "odsi": Kind(partial(_quic, OurSender), partial(_quic, OurReceiver)),
    "stock": Kind(partial(_quic, StockSender), partial(_quic, StockReceiver)),
    "grpc": Kind(lambda _: GrpcSender(call_for_each=False), lambda _: GrpcReceiver()),
    "grpc-calls": Kind(lambda _: GrpcSender(call_for_each=True), lambda _: GrpcReceiver()),
}


def main() -> int:
    """Live as long as the socket."""
    with socket.socket(fileno=int(sys.argv[1])) as channel:
        try:
            told = json.loads(_line(channel))
            is_sender = told["role"] == "sender"
            address = SENDER_ADDRESS if is_sender else RECEIVER_ADDRESS
            tun = enter(address, told["mtu_bytes"], told["tcp_congestion"], told["tcp_unsent_bytes"])
            send_file(channel, tun)
            os.close(tun)
            asyncio.run(_serve(channel, told, _send if is_sender else _receive))
        except OdsiError as error:
            channel.sendall(json.dumps({"error": str(error)}).encode() + b"\n")
            return 2
    return 0


def _line(channel: socket.socket) -> bytes:
    """Up to the end of a line: nothing follows it before we answered."""
    line = b""
    while not line.endswith(b"\n"):
        more = channel.recv(65_536)
        if not more:
            sys.exit(1)
        line += more
    return line


async def _serve(channel: socket.socket, told: dict[str, Any], role: Any) -> None:
    reader, writer = await asyncio.open_unix_connection(sock=channel)

    async def hear() -> dict[str, Any]:
        line = await reader.readline()
        if not line:
            os._exit(0)  # whatever the transport still does, nobody waits for it
        heard: dict[str, Any] = json.loads(line)
        return heard

    def tell(**values: Any) -> None:
        writer.write(json.dumps(values).encode() + b"\n")

    await role(KINDS[told["kind"]], told, hear, tell)
    await hear()


async def _receive(kind: Kind, told: dict[str, Any], hear: Any, tell: Any) -> None:
    receiver, arrivals = kind.receiver(told), Arrivals()
    await receiver.listen(RECEIVER_ADDRESS, arrivals)
    tell(ready=True)
    await hear()
    tell(at_ns=list(arrivals.at_ns.items()), bulk_bytes=list(arrivals.bulk_bytes.items()))


async def _send(kind: Kind, told: dict[str, Any], hear: Any, tell: Any) -> None:
    sender = kind.sender(told)
    await hear()  # the other side listens
    await sender.connect(RECEIVER_ADDRESS, 1 + told["elsewhere"])
    tell(ready=True)
    await hear()
    for index in range(told["transfers"]):
        sender.send_bulk(1 + index % told["elsewhere"] if told["elsewhere"] else 0, index + 1)
    sent_ns = await send_activations(
        sender,
        count=int(told["duration_s"] * 1e3 / told["period_ms"]),
        size_bytes=told["size_bytes"],
        period_s=told["period_ms"] / 1e3,
        deadline_s=told["deadline_ms"] / 1e3,
    )
    tell(sent_ns=sent_ns)


if __name__ == "__main__":
    sys.exit(main())
