"""Whatever the bytes are, a decoder returns a value, or raises ``Malformed`` or ``Incomplete``."""

import random
from collections.abc import Callable

import pytest
from wire.samples import DELEGATION, signed
from wire.test_messages import CANCEL, COMMIT, HELLO, OPEN
from wire.test_step import HEADER

from odsi_proto.errors import Incomplete, Malformed
from odsi_proto.units import Handle, Micros, Position, StageIndex
from odsi_proto.wire import cbor
from odsi_proto.wire.frames import (
    CommitFrame,
    OpenFrame,
    RefuseFrame,
    StatusFrame,
    StatusRecord,
    decode_frame,
    encode_frame,
)
from odsi_proto.wire.identity import Delegation, SignedMessage
from odsi_proto.wire.messages import Cancel, Commit, Hello, Open
from odsi_proto.wire.step import StepHeader
from odsi_proto.wire.varint import Cursor

Decoder = Callable[[bytes], object]

ZERO_US = Micros(0)
RECORD = StatusRecord(
    stage=StageIndex(1),
    lineage=0,
    position=Position(5),
    count=1,
    remaining_us=Micros(90_000),
    transfer_us=ZERO_US,
    queue_us=ZERO_US,
    compute_us=Micros(1_200),
    coordination_us=ZERO_US,
    output_bytes=2334,
)
FRAMES = [
    StatusFrame(handle=Handle(1), records=(RECORD, RECORD)),
    RefuseFrame(handle=Handle(1), stage=StageIndex(0), code=9, lineage=0, position=Position(0), reason="why"),
    OpenFrame(handle=Handle(1), stage=StageIndex(0), message=b"message"),
    CommitFrame(handle=Handle(1), stage=StageIndex(0), message=b"message"),
]
TELLING = b"\x00\x1b\x5b\x7f\x80\x9b\xc0\xff"


def next_frame(raw: bytes) -> object:
    return decode_frame(Cursor(raw), payload_bytes_max=4096)


def signed_open(raw: bytes) -> object:
    return SignedMessage.decode("open", raw)


SEEDS: list[tuple[str, Decoder, list[bytes]]] = [
    ("varint", lambda raw: Cursor(raw).varint(), [b"\xc2\x19\x7c\x5e\xff\x14\xe8\x8c"]),
    ("step header", lambda raw: StepHeader.decode(Cursor(raw)), [HEADER.encode()[1:]]),
    ("frame", next_frame, [encode_frame(frame) for frame in FRAMES]),
    ("cbor", cbor.decode, [OPEN.encode(), cbor.encode(["text", b"octets", [1, [2, [3]]]])]),
    ("hello", Hello.decode, [HELLO.encode()]),
    ("open", Open.decode, [OPEN.encode()]),
    ("commit", Commit.decode, [COMMIT.encode()]),
    ("cancel", Cancel.decode, [CANCEL.encode()]),
    ("delegation", Delegation.decode, [DELEGATION.encode()]),
    ("signed message", signed_open, [signed("open", OPEN.encode()).encode()]),
]


def mutated(source: random.Random, raw: bytes) -> bytes:
    """Random bytes, or ``raw`` with a few bytes changed, cut, doubled or replaced by telling ones."""
    if source.random() < 0.1:
        return source.randbytes(source.randrange(64))
    data = bytearray(raw)
    for _ in range(source.choice((1, 1, 1, 2, 3, 8))):
        at = source.randrange(len(data) + 1)
        match source.randrange(6):
            case 0:
                data[at : at + 1] = source.randbytes(1)
            case 1:
                data[at : at + 1] = bytes([source.choice(TELLING)])
            case 2:
                del data[at : at + source.choice((1, 1, 2, 8))]
            case 3:
                data[at:at] = data[at : at + source.choice((1, 4, 16))]
            case 4:
                data[at:at] = source.randbytes(source.choice((1, 2, 8)))
            case _:
                del data[at:]
    return bytes(data)


def outcomes(decoder: Decoder, seeds: list[bytes], *, count: int, seed: int) -> set[str]:
    """Feed ``count`` inputs; anything but the two errors comes out of here."""
    source, seen = random.Random(seed), set()
    for _ in range(count):
        try:
            decoder(mutated(source, source.choice(seeds)))
        except Malformed:
            seen.add("malformed")
        except Incomplete:
            seen.add("incomplete")
        else:
            seen.add("value")
    return seen


@pytest.mark.parametrize(("decoder", "seeds"), [row[1:] for row in SEEDS], ids=[row[0] for row in SEEDS])
def test_no_bytes_raise_anything_but_malformed_or_incomplete(decoder: Decoder, seeds: list[bytes]) -> None:
    assert outcomes(decoder, seeds, count=2_000, seed=1)
