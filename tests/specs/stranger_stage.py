"""An execution node written from ``specs/`` alone: one stage that holds the whole model and doubles.

The other half of ``stranger``: it accepts instead of dialling, and commits instead of asking.
"""

import asyncio
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Any

from aioquic.asyncio import serve
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.events import HandshakeCompleted, QuicEvent
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID
from specs.stranger import (
    ATTACH,
    ATTACHED,
    AUTH,
    CANCEL,
    COMMIT,
    HELLO,
    OPEN,
    STATUS,
    Identity,
    Link,
    cbor,
    digest,
    read_varint,
    uncbor,
    varint,
)

MODEL_ROOT, LAYERS = b"m" * 32, (0, 4)


class Stage:
    """Serves the first connection that comes, until its client cancels."""

    def __init__(self, now_s: int) -> None:
        self.who = Identity(now_s)
        self.certificate = self._certificate()
        self.cancelled: asyncio.Future[list[Any]] = asyncio.get_running_loop().create_future()
        self._task: asyncio.Task[None] | None = None

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[int]:
        """The port that it listens on."""
        configuration = QuicConfiguration(is_client=False, alpn_protocols=["odsi/1"], idle_timeout=3.5)
        configuration.certificate, configuration.private_key = self.certificate, self.who.hot
        server = await serve("127.0.0.1", 0, configuration=configuration, create_protocol=self._accept)
        try:
            yield server._transport.get_extra_info("sockname")[1]
        finally:
            server.close()

    def begin(self, link: Link) -> None:
        """TLS is done."""
        self._task = asyncio.create_task(self._serve(link))
        self._task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        error = None if task.cancelled() else task.exception()
        if error is not None and not self.cancelled.done():
            self.cancelled.set_exception(error)

    async def _serve(self, link: Link) -> None:
        await self._greet(link)
        opening = await link.frame(OPEN)
        handle, at = read_varint(opening, 0)
        assert opening[at] == 0
        (body, delegation, _), _ = uncbor(opening[at + 1 :])
        client = uncbor(uncbor(delegation)[0][0])[0]
        asked, _ = uncbor(body)
        assert asked[7][0][0] == self.who.participant
        named = digest("open", client[1], client[4], body)
        plan, (codec_in, codec_out) = asked[7][0], asked[8]
        head = [1, named, asked[1], asked[2], 0, *LAYERS, 0, asked[12], client[1], MODEL_ROOT]
        tail = [asked[4], codec_in, codec_out, plan[4], 0, 0, 0, 0, 8, asked[15], b"", []]
        message = self.who.message("commit", cbor(head + tail))
        link.write(COMMIT, varint(handle) + b"\0" + message)
        attach = await link.frame(ATTACH)
        assert attach[:16] == asked[1]
        assert sha256(attach[16:]).digest() == asked[14]
        link.write(ATTACHED, asked[1] + varint(9))
        await self._run(link, handle)
        message = uncbor(await link.frame(CANCEL))[0]
        self.cancelled.set_result(uncbor(message[0])[0])

    async def _greet(self, link: Link) -> None:
        """Part 01 sections 3 and 4, the acceptor's side."""
        seen = sha256(self.certificate.public_bytes(Encoding.DER)).digest()
        offer = [*LAYERS, MODEL_ROOT]
        hello = cbor([[1], self.who.delegation, b"N" * 32, seen, [2], [1], [1], [1], [], [offer], []])
        link.write(HELLO, hello)
        theirs = await link.frame(HELLO)
        transcript = sha256(theirs).digest() + sha256(hello).digest() + seen
        link.write(AUTH, self.who.sign("auth", b"\1" + transcript))
        delegation = uncbor(uncbor(uncbor(theirs)[0][1])[0][0])[0]
        signed = digest("auth", delegation[1], delegation[4], b"\0" + transcript)
        Ed25519PublicKey.from_public_bytes(delegation[2]).verify(await link.frame(AUTH), signed)

    async def _run(self, link: Link, handle: int) -> None:
        """Part 03 section 5: one step in, its last row out."""
        step = await link.finished.get()
        at, numbers = 1, []
        for _ in range(7):
            number, at = read_varint(step, at)
            numbers.append(number)
        _, lineage, _, position, count, remaining_us, _ = numbers
        assert (step[0], numbers[0], step[at + 16]) == (2, handle, 0)
        row = struct.unpack("<2f", step[-8:])
        out = b"".join(map(varint, (9, lineage, 0, position, count, remaining_us, 0)))
        header = b"\2" + out + step[at : at + 17]
        link.open_stream(header + struct.pack("<2f", *(2 * value for value in row)), fin=True)
        times = (remaining_us, 0, 0, 0, 0, len(header) + 8, 0)
        record = b"".join(map(varint, (0, lineage, position, count, *times))) + b"\0\0"
        link.write(STATUS, varint(handle) + varint(9) + varint(9_000) + record)

    def _accept(self, *args: Any, **options: Any) -> Link:
        stage = self

        class Accepted(Link):
            def quic_event_received(self, event: QuicEvent) -> None:
                super().quic_event_received(event)
                if isinstance(event, HandshakeCompleted):
                    stage.begin(self)

        return Accepted(*args, **options)

    def _certificate(self) -> x509.Certificate:
        """Part 01, TLS-003: its key is the hot key, and nothing else in it matters."""
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "a stranger")])
        start = datetime(2020, 1, 1, tzinfo=UTC)
        builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).serial_number(7)
        builder = builder.not_valid_before(start).not_valid_after(start + timedelta(days=1))
        return builder.public_key(self.who.hot.public_key()).sign(self.who.hot, None)
