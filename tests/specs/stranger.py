"""A client written from ``specs/`` alone: it imports nothing of this project.

It speaks to one stage that holds the whole model: hello, OPEN, one step, close. Comments name the
part and section that each piece was written from. Nothing here is shared with the implementation,
so a rule that the documents leave out, or state wrongly, makes the conversation fail.
"""

import asyncio
import hmac
import ssl
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from hashlib import sha256
from typing import Any

from aioquic.asyncio import QuicConnectionProtocol, connect
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.events import QuicEvent, StreamDataReceived
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

HELLO, AUTH, OPEN, COMMIT, ATTACH, ATTACHED, REFUSE, STATUS, CANCEL = range(0, 18, 2)  # part 06


def varint(value: int) -> bytes:
    """Part 02 section 1."""
    for prefix, size in enumerate((1, 2, 4, 8)):
        if value < 1 << (8 * size - 2):
            return (value | prefix << (8 * size - 2)).to_bytes(size, "big")
    raise ValueError(value)


def read_varint(data: bytes, at: int) -> tuple[int, int]:
    size = 1 << (data[at] >> 6)
    return int.from_bytes(data[at : at + size], "big") & ((1 << (8 * size - 2)) - 1), at + size


def cbor(value: Any) -> bytes:
    """Part 02 section 6."""
    match value:
        case int():
            return _head(0, value)
        case bytes():
            return _head(2, len(value)) + value
        case str():
            return _head(3, len(value.encode())) + value.encode()
        case _:
            return _head(4, len(value)) + b"".join(map(cbor, value))


def _head(major: int, number: int) -> bytes:
    if number < 24:
        return bytes([major << 5 | number])
    size = next(size for size in (1, 2, 4, 8) if number < 1 << (8 * size))
    return bytes([major << 5 | (23 + size.bit_length())]) + number.to_bytes(size, "big")


def uncbor(data: bytes, at: int = 0) -> tuple[Any, int]:
    major, number, at = data[at] >> 5, data[at] & 31, at + 1
    if number > 23:
        size = 1 << (number - 24)
        number, at = int.from_bytes(data[at : at + size], "big"), at + size
    match major:
        case 0:
            return number, at
        case 2 | 3:
            raw = data[at : at + number]
            return (raw if major == 2 else raw.decode()), at + number
        case _:
            items = []
            for _ in range(number):
                item, at = uncbor(data, at)
                items.append(item)
            return items, at


class Identity:
    """Part 01 section 1."""

    def __init__(self, not_before_s: int) -> None:
        cold, self.hot = Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()
        self.participant, hot_key = public(cold), public(self.hot)
        body = cbor([1, self.participant, hot_key, "all", 1, not_before_s, not_before_s + 86_400, 0])
        signature = cold.sign(digest("delegation", self.participant, 1, body))
        self.delegation = cbor([body, signature])

    def sign(self, domain: str, body: bytes) -> bytes:
        return self.hot.sign(digest(domain, self.participant, 1, body))

    def message(self, domain: str, body: bytes) -> bytes:
        return cbor([body, self.delegation, self.sign(domain, body)])


def public(key: Ed25519PrivateKey) -> bytes:
    return key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)


def digest(domain: str, participant: bytes, epoch: int, body: bytes) -> bytes:
    """Part 01 section 1.1."""
    name = domain.encode()
    raw = b"odsi/1" + bytes([len(name)]) + name + participant + epoch.to_bytes(8, "big") + body
    return sha256(raw).digest()


def tags(request: bytes, secret: bytes, tokens: list[int]) -> list[bytes]:
    """Part 03 section 6."""
    found = [sha256(b"odsi/1 tag root" + request).digest()[:8]]
    for position, token in enumerate(tokens):
        text = position.to_bytes(8, "big") + token.to_bytes(8, "big")
        found.append(sha256(found[-1] + hmac.digest(secret, text, "sha256")).digest()[:8])
    return found


class Link(QuicConnectionProtocol):
    """The peer's streams as they come, by their ids."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.streams: dict[int, bytearray] = {}
        self.finished: asyncio.Queue[bytes] = asyncio.Queue()
        self._frames_taken = 1  # after the type of the control stream
        self._arrived = asyncio.Event()
        self._control: int | None = None

    def quic_event_received(self, event: QuicEvent) -> None:
        if isinstance(event, StreamDataReceived):
            self.streams.setdefault(event.stream_id, bytearray()).extend(event.data)
            if event.end_stream:
                self.finished.put_nowait(bytes(self.streams[event.stream_id]))
            self._arrived.set()

    def open_stream(self, data: bytes, *, fin: bool) -> int:
        stream: int = self._quic.get_next_available_stream_id(is_unidirectional=True)
        self._quic.send_stream_data(stream, data, fin)
        self.transmit()
        return stream

    def write(self, frame_type: int, payload: bytes) -> None:
        frame = varint(frame_type) + varint(len(payload)) + payload
        if self._control is None:
            self._control = self.open_stream(b"\0" + frame, fin=False)
        else:
            self._quic.send_stream_data(self._control, frame)
            self.transmit()

    async def frame(self, wanted: int) -> bytes:
        """The payload of the next frame of a type; others are passed over (part 02 section 3)."""
        while True:
            control = next((bytes(s) for s in self.streams.values() if s[:1] == b"\0"), b"")
            try:
                frame_type, at = read_varint(control, self._frames_taken)
                length, at = read_varint(control, at)
            except IndexError:
                frame_type, at, length = -1, 0, len(control) + 1
            if at + length <= len(control):
                self._frames_taken = at + length
                if frame_type == wanted:
                    return control[at : at + length]
                continue
            self._arrived.clear()
            await self._arrived.wait()


@asynccontextmanager
async def dial(port: int) -> AsyncIterator[Link]:
    """Part 01 section 2."""
    configuration = QuicConfiguration(
        is_client=True, alpn_protocols=["odsi/1"], verify_mode=ssl.CERT_NONE, idle_timeout=3.5
    )
    async with connect("127.0.0.1", port, configuration=configuration, create_protocol=Link) as link:
        assert isinstance(link, Link)
        yield link


async def greet(link: Link, who: Identity) -> list[Any]:
    """HELLO and AUTH, part 01 sections 3 and 4; returns the acceptor's HELLO."""
    hello = cbor([[1], who.delegation, b"n" * 32, b"", [1], [1], [1], [1], [], [], []])
    link.write(HELLO, hello)
    theirs = await link.frame(HELLO)
    fields, _ = uncbor(theirs)
    certificate = link._quic.tls._peer_certificate
    assert certificate is not None
    seen = sha256(certificate.public_bytes(Encoding.DER)).digest()
    assert fields[3] == seen
    transcript = sha256(hello).digest() + sha256(theirs).digest() + seen
    link.write(AUTH, who.sign("auth", b"\0" + transcript))
    delegation, _ = uncbor(uncbor(fields[1])[0][0])
    digest_ = digest("auth", delegation[1], delegation[4], b"\1" + transcript)
    key = certificate.public_key()
    key.verify(await link.frame(AUTH), digest_)  # type: ignore[union-attr, call-arg, arg-type]
    return [delegation[1], fields]


async def generate(port: int, now_s: int, rows: list[tuple[float, float]]) -> tuple[float, ...]:
    """One request of one step on a model of width 2: the last row that comes back."""
    async with dial(port) as link:
        who = Identity(now_s)
        stage, hello = await greet(link, who)
        first, end, model_root = hello[9][0]
        request, token, secret = b"r" * 16, b"t" * 16, b"s" * 32
        plan = [stage, [], first, end, 0, 0, 1_000_000]
        head = [1, request, 0, model_root, 1, 1, 2, [plan], [1, 1], [[1, 1_000_000], [2, 1_000_000]]]
        body = cbor([*head, 1, 0, 16, 1, sha256(token).digest(), now_s + 600, []])
        link.write(OPEN, varint(5) + varint(0) + who.message("open", body))
        link.write(ATTACH, request + token)
        commit = await link.frame(COMMIT)
        assert commit[:2] == b"\5\0"
        promise, _ = uncbor(uncbor(commit[2:])[0][0])
        assert promise[1] == digest("open", who.participant, 1, body)
        attached = await link.frame(ATTACHED)
        assert attached[:16] == request
        chain = tags(request, secret, list(range(len(rows))))
        numbers = b"".join(map(varint, (5, 0, 0, 0, len(rows), 1_000_000, 0)))
        payload = b"".join(struct.pack("<2f", *row) for row in rows)
        link.open_stream(b"\2" + numbers + chain[0] + chain[-1] + b"\0" + payload, fin=True)
        result = await link.finished.get()
        status = await link.frame(STATUS)
        assert status[:1] == b"\5"
        link.write(CANCEL, who.message("cancel", cbor([1, request, 0, 0])))
        at, returned = 1, []
        for _ in range(7):
            number, at = read_varint(result, at)
            returned.append(number)
        assert result[:1] == b"\2"
        assert returned[:5] == [read_varint(attached, 16)[0], 0, 0, 0, len(rows)]
        assert result[at : at + 17] == chain[0] + chain[-1] + b"\0"
        link.close()
        return struct.unpack("<2f", result[at + 17 :])
