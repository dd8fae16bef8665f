"""gRPC over the kernel's TCP: a call for each bulk transfer, and one for all activations or one for each.

A call takes one write at a time, so on one call an activation waits for those before it; calls of their
own do not wait for each other, and cost more.
"""

import asyncio
from collections.abc import AsyncIterator
from importlib import import_module
from typing import Any

from bench.deadlines.messages import ACTIVATION, message
from bench.deadlines.realtime.traffic import PORT, Arrivals
from odsi_proto.errors import ConfigError

PIECE_BYTES = 16_384
"""Of bulk in a message: a transport of frames of this size is not to be blamed for larger ones."""

_STREAM, _CALL = "/bench.Sink/Stream", "/bench.Sink/Call"
_OPTIONS = (
    ("grpc.max_receive_message_length", -1),
    ("grpc.use_local_subchannel_pool", 1),  # else channels to one address share a connection
)


def load_grpc() -> Any:
    """The library; raises ``ConfigError`` where it is missing."""
    try:
        import_module("grpc.aio")
    except ImportError as error:
        raise ConfigError("gRPC is missing: pip install -e '.[bench-deadlines]'") from error
    return import_module("grpc")


class GrpcSender:
    """Messages on gRPC; a channel is a TCP connection."""

    def __init__(self, *, call_for_each: bool) -> None:
        self._grpc = load_grpc()
        self._call_for_each = call_for_each
        self._channels: list[Any] = []
        self._waiting: asyncio.Queue[bytes] = asyncio.Queue()
        self._tasks: set[asyncio.Task[None]] = set()
        self._one_call: Any = None

    async def connect(self, host: str, connections: int) -> None:
        """Open channels, and the call that activations go over."""
        for _ in range(connections):
            channel = self._grpc.aio.insecure_channel(f"{host}:{PORT}", options=_OPTIONS)
            await channel.channel_ready()
            self._channels.append(channel)
        if self._call_for_each:
            self._one_call = self._channels[0].unary_unary(_CALL)
        else:
            self._start(self._write_activations(self._stream(0)))

    def send_activation(self, number: int, size_bytes: int, deadline_s: float) -> None:
        """By itself, or behind those that were not written yet."""
        data = message(ACTIVATION, number, size_bytes)
        if self._call_for_each:
            self._start(self._write_one(data))
        else:
            self._waiting.put_nowait(data)

    def send_bulk(self, connection: int, flow: int) -> None:
        """On a call of its own."""
        self._start(self._write_bulk(self._stream(connection), message(flow, 0, PIECE_BYTES)))

    def _stream(self, connection: int) -> Any:
        return self._channels[connection].stream_unary(_STREAM)()

    async def _write_one(self, data: bytes) -> None:
        await self._one_call(data)

    async def _write_activations(self, call: Any) -> None:
        while True:
            await call.write(await self._waiting.get())

    async def _write_bulk(self, call: Any, data: bytes) -> None:
        while True:
            await call.write(data)

    def _start(self, work: Any) -> None:
        task: asyncio.Task[None] = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


class GrpcReceiver:
    """A server that reads every call to its end."""

    def __init__(self) -> None:
        self._grpc = load_grpc()
        self._server: Any = None

    async def listen(self, host: str, arrivals: Arrivals) -> None:
        """Accept channels."""

        async def sink(messages: AsyncIterator[bytes], _: Any) -> bytes:
            async for data in messages:
                arrivals.message(data)
            return b""

        async def take(data: bytes, _: Any) -> bytes:
            arrivals.message(data)
            return b""

        grpc = self._grpc
        methods = {
            "Stream": grpc.stream_unary_rpc_method_handler(sink),
            "Call": grpc.unary_unary_rpc_method_handler(take),
        }
        handler = grpc.method_handlers_generic_handler("bench.Sink", methods)
        self._server = grpc.aio.server(options=_OPTIONS)
        self._server.add_generic_rpc_handlers((handler,))
        self._server.add_insecure_port(f"{host}:{PORT}")
        await self._server.start()
