"""Codec vectors: bytes with their fields, and bytes that must be refused."""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

from vectors_samples import CANCEL, COMMIT, EXTENSION, HELLO, IDENTITY, OPEN, OTHER_HELLO, REQUEST

from odsi_proto.testing.vector_machines import signer_of
from odsi_proto.testing.vector_values import plain
from odsi_proto.testing.vectors import CODECS
from odsi_proto.units import Handle, Micros, Position, StageIndex, Tag
from odsi_proto.wire import cbor, frames
from odsi_proto.wire.codepoints import ErrorCode
from odsi_proto.wire.identity import SignedMessage
from odsi_proto.wire.step import DURATION_US_MAX, POSITIONS_MAX, StepHeader
from odsi_proto.wire.varint import VARINT_MAX, encode_varint

Case = dict[str, Any]
Files = dict[str, tuple[str, list[Case]]]


def codec_vectors() -> Files:
    """One file for each layer."""
    return {
        "varints": ("codec", list(varints())),
        "step-headers": ("codec", list(step_headers())),
        "frames": ("codec", list(every_frame())),
        "cbor": ("codec", list(cbor_items())),
        "messages": ("codec", list(messages())),
    }


def valid(name: str, codec: str, raw: bytes, **extra: Any) -> Case:
    """Bytes with what they mean."""
    head = {"name": name, "codec": codec, **extra, "bytes": raw.hex(), "valid": True}
    value, end = CODECS[codec].read(raw, head)
    assert end == len(raw), name
    return {**head, "value": plain(value)}


def invalid(name: str, codec: str, raw: bytes, why: str, *, error: str = "malformed", **extra: Any) -> Case:
    """Bytes that have no meaning, and why."""
    head = {"name": name, "codec": codec, **extra, "bytes": raw.hex(), "valid": False}
    return {**head, "error": error, "why": why}


def cut(name: str, codec: str, raw: bytes) -> Case:
    """The beginning of something."""
    return invalid(name, codec, raw, "bytes are missing", error="incomplete")


def varints() -> Iterator[Case]:
    """All sizes at both ends, longer than need be, and cut."""
    for value in (0, 1, 0x3F, 0x40, 0x3FFF, 0x4000, 0x3FFF_FFFF, 0x4000_0000, VARINT_MAX):
        yield valid(f"shortest-{value:#x}", "varint", encode_varint(value))
    for raw in ("4000", "403f", "80000025", "80003fff", "c000000000000000", "c00000003fffffff"):
        yield valid(f"longer-{raw}", "varint", bytes.fromhex(raw), canonical=False)
    for raw in ("", "40", "7f", "80", "8000", "bfffff", "c0", "c0000000000000", "ffffffffffffff"):
        yield cut(f"cut-{raw or 'nothing'}", "varint", bytes.fromhex(raw))
    for raw in ("41", "9d7f", "9d7f3e", "c2197c5eff14e8", "e0", "a0a0", "5f", "999999", "d0d0d0d0"):
        yield cut(f"cut-{raw}", "varint", bytes.fromhex(raw))


HEADER = StepHeader(
    handle=Handle(3),
    lineage=0,
    attempt=0,
    position=Position(700),
    count=1,
    remaining_us=Micros(180_000),
    owd_us=Micros(12_000),
    tag_before=Tag(b"\x11" * 8),
    tag_after=Tag(b"\x22" * 8),
)


def step_headers() -> Iterator[Case]:
    """Typical, extreme, and out of bounds."""
    changes: list[tuple[str, Case]] = [
        ("typical", {}),
        ("smallest", {"handle": 0, "position": 0, "remaining_us": 0, "owd_us": 0}),
        ("prefill-chunk", {"position": 0, "count": 128}),
        ("largest-numbers", {"handle": VARINT_MAX, "lineage": VARINT_MAX, "attempt": VARINT_MAX}),
        ("largest-durations", {"remaining_us": DURATION_US_MAX, "owd_us": DURATION_US_MAX}),
        ("last-position", {"position": POSITIONS_MAX - 1}),
        ("all-positions", {"position": 0, "count": POSITIONS_MAX}),
        ("retry", {"attempt": 1}),
        ("extension-of-1-byte", {"extension": b"\x99"}),
        ("extension-of-63-bytes", {"extension": b"\x99" * 63}),
        ("extension-of-64-bytes", {"extension": b"\x99" * 64}),
    ]
    for name, values in changes:
        yield valid(name, "step_header", dataclasses.replace(HEADER, **values).encode())
    head = HEADER.encode()
    longer = b"\x40\x02" + head[1:]
    yield valid("longer-varints", "step_header", longer, canonical=False)
    wrong: list[tuple[str, Case, str]] = [
        ("no-positions", {"count": 0}, "count is at least 1"),
        ("one-position-too-far", {"position": POSITIONS_MAX}, "position + count is at most 2**30"),
        ("far-too-many-positions", {"count": VARINT_MAX}, "position + count is at most 2**30"),
        ("position-far-too-large", {"position": VARINT_MAX}, "position + count is at most 2**30"),
        ("remaining-too-long", {"remaining_us": DURATION_US_MAX + 1}, "a duration is below 2**60"),
        ("delay-too-long", {"owd_us": DURATION_US_MAX + 1}, "a duration is below 2**60"),
        ("delay-longest-varint", {"owd_us": VARINT_MAX}, "a duration is below 2**60"),
        ("extension-of-65-bytes", {"extension": bytes(65)}, "an extension has at most 64 bytes"),
    ]
    for name, values, why in wrong:
        yield invalid(name, "step_header", dataclasses.replace(HEADER, **values).encode(), why)
    for length in (65, 1_000, VARINT_MAX):
        raw = head[:-1] + encode_varint(length)
        yield invalid(f"extension-of-{length}-bytes-to-come", "step_header", raw, "refused before it is here")
    yield invalid("control-stream", "step_header", b"\x00" + head[1:], "another stream type")
    yield cut("extension-cut", "step_header", head[:-1] + b"\x02\x99")


RECORD = frames.StatusRecord(
    stage=StageIndex(1),
    lineage=0,
    position=Position(700),
    count=1,
    remaining_us=Micros(168_000),
    transfer_us=Micros(12_300),
    queue_us=Micros(40),
    compute_us=Micros(3_200),
    coordination_us=Micros(90),
    output_bytes=1_182,
    flags=9,
)
HANDLE, STAGE, POSITION = Handle(3), StageIndex(1), Position(701)


REFUSAL = frames.RefuseFrame(
    handle=HANDLE, stage=STAGE, code=0x0E, lineage=0, position=POSITION, reason="chybí"
)


def sample_frames() -> list[tuple[str, frames.Frame]]:
    """Every frame at least once."""
    signer = signer_of(IDENTITY)
    opened = SignedMessage.sign(signer, "open", OPEN.encode()).encode()
    commit = SignedMessage.sign(signer, "commit", COMMIT.encode()).encode()
    cancel = SignedMessage.sign(signer, "cancel", CANCEL.encode()).encode()
    full = dataclasses.replace(RECORD, leaf=b"\x77" * 64, extension=b"\x88" * 64)
    return [
        ("hello", frames.HelloFrame(body=HELLO.encode())),
        ("auth", frames.AuthFrame(signature=bytes(range(64)))),
        ("open", frames.OpenFrame(handle=HANDLE, stage=StageIndex(0), message=opened)),
        ("open-of-the-last-stage", frames.OpenFrame(handle=Handle(0), stage=StageIndex(63), message=b"")),
        ("commit", frames.CommitFrame(handle=HANDLE, stage=STAGE, message=commit)),
        ("attach", frames.AttachFrame(request_id=REQUEST, return_token=b"\x99" * 16)),
        ("attached", frames.AttachedFrame(request_id=REQUEST, handle=Handle(VARINT_MAX))),
        (
            "refuse",
            REFUSAL,
        ),
        (
            "refuse-with-an-unknown-code",
            dataclasses.replace(REFUSAL, code=0x3FFF, reason=""),
        ),
        (
            "refuse-with-a-queue-time",
            dataclasses.replace(REFUSAL, code=ErrorCode.OVERLOADED, queue_us=Micros(17_000)),
        ),
        (
            "status",
            frames.StatusFrame(
                handle=HANDLE, credit_steps=70, credit_bytes=1_500_000, records=(RECORD, full)
            ),
        ),
        ("status-of-credit-alone", frames.StatusFrame(handle=HANDLE, credit_steps=4, records=())),
        ("status-of-nothing", frames.StatusFrame(handle=HANDLE, records=())),
        ("status-full", frames.StatusFrame(handle=HANDLE, records=(ZERO_RECORD,) * 256)),
        ("cancel", frames.CancelFrame(message=cancel)),
        ("goaway", frames.GoawayFrame(code=0x14, reason="leaving")),
        ("goaway-with-the-longest-reason", frames.GoawayFrame(code=0, reason="r" * 512)),
        ("abandon", frames.AbandonFrame(handle=HANDLE, code=0x12, reason="lost")),
        ("reserved-27", frames.UnknownFrame(type=27, body=b"")),
        ("reserved-89", frames.UnknownFrame(type=89, body=bytes(range(9)))),
        ("unknown-odd", frames.UnknownFrame(type=0x4001, body=b"odd")),
        ("unknown-even", frames.UnknownFrame(type=0x4000, body=b"even")),
    ]


ZERO_RECORD = dataclasses.replace(
    RECORD,
    position=Position(0),
    remaining_us=Micros(0),
    transfer_us=Micros(0),
    queue_us=Micros(0),
    compute_us=Micros(0),
    coordination_us=Micros(0),
    output_bytes=0,
)


def every_frame() -> Iterator[Case]:
    """Every frame, and each with too little and too much in it."""
    for name, frame in sample_frames():
        yield valid(name, "frame", frames.encode_frame(frame))
    # What ends with a body or a message has no byte too many; their codecs say what is wrong inside.
    open_ended = ("hello", "open", "commit", "cancel", "reserved", "unknown", "status-full")
    for name, frame in sample_frames():
        payload = frame.payload()
        if name.startswith(open_ended):
            continue
        raw = framed(frame.type, payload + b"\x40")
        yield invalid(f"{name}-and-a-byte", "frame", raw, "bytes are left")
        raw = framed(frame.type, payload[:-1])
        yield invalid(f"{name}-without-its-last-byte", "frame", raw, "a field is cut")
    for name, number, payload, why in ODD_FRAMES:
        yield invalid(name, "frame", framed(number, payload), why)
    yield invalid("too-long", "frame", b"\x1b" + encode_varint(65_537), "refused at its length")
    yield invalid("too-long-by-far", "frame", b"\x1b" + encode_varint(VARINT_MAX), "refused at its length")

    yield cut("half-a-length", "frame", b"\x1b\x40")


ODD_FRAMES: list[tuple[str, int, bytes, str]] = [
    ("open-of-stage-64", 0x04, b"\x00\x40\x40", "a stage is below 64"),
    ("open-of-nothing", 0x04, b"", "a field is cut"),
    ("open-without-a-stage", 0x04, b"\x00", "a field is cut"),
    ("commit-of-stage-64", 0x06, b"\x00\x40\x40", "a stage is below 64"),
    ("refuse-of-stage-64", 0x0C, b"\x00\x40\x40\x00\x00\x00\x00", "a stage is below 64"),
    ("status-of-stage-64", 0x0E, b"\x00\x40\x40" + bytes(11), "a stage is below 64"),
    ("status-of-257-records", 0x0E, b"\x00" + bytes(12) * 257, "a STATUS has at most 256 records"),
    (
        "status-with-a-leaf-of-65-bytes",
        0x0E,
        bytes(11) + b"\x40\x41" + bytes(66),
        "at most 64 bytes",
    ),
    (
        "reason-of-513-bytes",
        0x12,
        b"\x00" + encode_varint(513) + b"r" * 513,
        "at most 512 bytes",
    ),
    ("reason-that-is-not-utf-8", 0x12, b"\x00\x02\xc3\x28", "a reason is UTF-8"),
    ("reason-with-a-surrogate", 0x12, b"\x00\x03\xed\xa0\x80", "a reason is UTF-8"),
    ("abandon-with-a-reason-longer-than-it", 0x14, b"\x00\x00\x05abc", "a field is cut"),
]


def framed(number: int, payload: bytes) -> bytes:
    """Type, length, payload."""
    return encode_varint(number) + encode_varint(len(payload)) + payload


def cbor_items() -> Iterator[Case]:
    """The subset and everything beside it."""
    for name, value in (
        ("zero", 0),
        ("one-byte-end", 23),
        ("two-bytes", 24),
        ("u8-end", 255),
        ("u16-start", 256),
        ("u32-start", 65_536),
        ("u64-start", 2**32),
        ("u64-end", 2**64 - 1),
        ("no-octets", b""),
        ("octets", bytes(range(24))),
        ("no-text", ""),
        ("text", "žluť"),
        ("no-items", ()),
        ("items", (1, b"2", "3", (4, ()))),
        ("deepest", ((((((((),),),),),),),)),
    ):
        yield valid(name, "cbor", cbor.encode(value))
    for name, raw, why in (
        ("longer-than-it-need-be-u8", "1817", "an integer has one encoding"),
        ("longer-than-it-need-be-u16", "1900ff", "an integer has one encoding"),
        ("longer-than-it-need-be-u32", "1a0000ffff", "an integer has one encoding"),
        ("longer-than-it-need-be-u64", "1b00000000ffffffff", "an integer has one encoding"),
        ("longer-length", "5801aa", "a length has one encoding"),
        ("longer-count", "980100", "a count has one encoding"),
        ("indefinite-octets", "5f41aaff", "lengths are definite"),
        ("indefinite-text", "7f6161ff", "lengths are definite"),
        ("indefinite-array", "9f00ff", "lengths are definite"),
        ("reserved-28", "1c", "a reserved head"),
        ("negative", "20", "major type 1"),
        ("map", "a10000", "major type 5"),
        ("tag", "c249010000000000000000", "major type 6"),
        ("false", "f4", "major type 7"),
        ("null", "f6", "major type 7"),
        ("float", "fb3ff0000000000000", "major type 7"),
        ("two-items", "0000", "bytes are left"),
        ("octets-cut", "42aa", "it ends early"),
        ("array-cut", "8200", "it ends early"),
        ("not-utf-8", "62c328", "text is UTF-8"),
        ("overlong-utf-8", "62c080", "text is UTF-8"),
        ("surrogate", "63eda080", "text is UTF-8"),
        ("too-deep", "81" * 8 + "80", "arrays nest at most 8 deep"),
        ("count-far-too-large", "9bffffffffffffffff", "it ends early"),
        ("length-far-too-large", "5bffffffffffffffff", "it ends early"),
    ):
        yield invalid(name, "cbor", bytes.fromhex(raw), why)


def messages() -> Iterator[Case]:
    """Bodies, a delegation, signed messages: whole, and with every field missing or of another type."""
    delegation = signer_of(IDENTITY).delegation
    short = dataclasses.replace(OPEN, stages=OPEN.stages[:1], codecs=(1, 1))
    replacement = dataclasses.replace(COMMIT, previous_commit=bytes(32))
    samples: list[tuple[str, str, bytes]] = [
        ("hello", "hello", HELLO.encode()),
        ("hello-with-an-extension", "hello", OTHER_HELLO.encode()),
        ("open", "open", OPEN.encode()),
        ("open-of-one-stage", "open", short.encode()),
        ("commit", "commit", COMMIT.encode()),
        ("commit-in-place-of-another", "commit", replacement.encode()),
        ("cancel", "cancel", CANCEL.encode()),
        ("delegation", "delegation", delegation.encode()),
    ]
    for name, codec, raw in samples:
        yield valid(name, codec, raw)
        yield from damaged(name, codec, raw)
    for name, codec, raw, why in out_of_bounds():
        yield invalid(name, codec, raw, why)
    signer = signer_of(IDENTITY)
    for domain, body in (("open", OPEN), ("commit", COMMIT), ("cancel", CANCEL)):
        message = SignedMessage.sign(signer, domain, body.encode())
        yield valid(f"signed-{domain}", "signed_message", message.encode(), domain=domain)
        yield from damaged(f"signed-{domain}", "signed_message", message.encode(), domain=domain)
        raw = message.encode()
        yield invalid(
            f"signed-{domain}-in-another-domain", "signed_message", raw, "another domain", domain="checkpoint"
        )
        forged = dataclasses.replace(message, signature=with_group_order(message.signature)).encode()
        why = "S is below the order of the group"
        yield invalid(f"signed-{domain}-malleable", "signed_message", forged, why, domain=domain)


def damaged(name: str, codec: str, raw: bytes, **extra: Any) -> Iterator[Case]:
    """One field less, one more, each of another type, one byte more, one bit changed."""
    values = cbor.decode(raw)
    assert isinstance(values, Sequence)
    assert not isinstance(values, str | bytes)
    less = cbor.encode(values[:-1])
    yield invalid(f"{name}-without-its-last-field", codec, less, "a field is missing", **extra)
    yield invalid(f"{name}-and-a-field", codec, cbor.encode((*values, 0)), "a field too many", **extra)
    yield invalid(f"{name}-and-a-byte", codec, raw + b"\x00", "bytes are left", **extra)
    for index, value in enumerate(values):
        other: cbor.Value = 0 if not isinstance(value, int) else b"\x00"
        changed = (*values[:index], other, *values[index + 1 :])
        yield invalid(
            f"{name}-field-{index}-of-another-type", codec, cbor.encode(changed), "a type is wrong", **extra
        )


def out_of_bounds() -> Iterator[tuple[str, str, bytes, str]]:
    """Values beyond a bound, in bodies that are else as they should be."""
    wide = (EXTENSION,) * 65
    for name, values, why in (
        ("no-stages", {"stages": (), "codecs": (1,)}, "a path has a stage"),
        ("codec-missing", {"codecs": (1, 1)}, "one codec per hop"),
        ("codec-too-many", {"codecs": (1,) * 4}, "one codec per hop"),
        ("no-width", {"width": 0}, "width is at least 1"),
        ("too-wide", {"width": (1 << 20) + 1}, "width is at most 2**20"),
        ("no-positions", {"positions_max": 0}, "positions_max is at least 1"),
        ("too-many-positions", {"positions_max": (1 << 30) + 1}, "positions_max is at most 2**30"),
        ("no-rows-returned", {"rows_returned_max": 0}, "rows_returned_max is at least 1"),
        ("lineage-beyond-a-varint", {"lineage": VARINT_MAX + 1}, "a lineage is a varint elsewhere"),
        ("65-stages", {"stages": OPEN.stages[:1] * 65, "codecs": (1,) * 66}, "at most 64 stages"),
        ("65-extensions", {"extensions": wide}, "at most 64 extensions"),
        ("short-request-id", {"request_id": bytes(15)}, "a request id has 16 bytes"),
        ("long-root", {"model_root": bytes(33)}, "a digest has 32 bytes"),
    ):
        yield f"open-{name}", "open", dataclasses.replace(OPEN, **values).encode(), why  # type: ignore[arg-type]
    for name, values, why in (
        ("stage-64", {"stage": 64}, "a stage is below 64"),
        ("half-a-digest", {"previous_commit": bytes(16)}, "a digest or nothing"),
        ("lineage-beyond-a-varint", {"lineage": VARINT_MAX + 1}, "a lineage is a varint elsewhere"),
    ):
        yield f"commit-{name}", "commit", dataclasses.replace(COMMIT, **values).encode(), why  # type: ignore[arg-type]
    for name, index, value, why in (
        ("version-2", 0, 2, "another version"),
        ("layers-backwards", 5, 20, "a range has a layer"),
        ("layers-beyond-4096", 6, 4097, "a layer is at most 4096"),
    ):
        body = list(cbor.decode(COMMIT.encode()))  # type: ignore[arg-type]
        body[index] = value
        yield f"commit-{name}", "commit", cbor.encode(body), why
    forged = dataclasses.replace(signer_of(IDENTITY).delegation, signature=bytes(64))
    yield "delegation-unsigned", "delegation", forged.encode(), "the signature is not valid"
    small = dataclasses.replace(forged, participant=bytes([1]) + bytes(31), signature=bytes([1]) + bytes(63))
    yield (
        "delegation-by-a-key-of-small-order",
        "delegation",
        small.encode(),
        "keys of small order sign nothing",
    )
    yield (
        "hello-with-a-forged-delegation",
        "hello",
        dataclasses.replace(HELLO, delegation=forged).encode(),
        "forged",
    )


GROUP_ORDER = 2**252 + 27742317777372353535851937790883648493


def with_group_order(signature: bytes) -> bytes:
    """The same signature with S + L: lenient verifiers take it."""
    scalar = int.from_bytes(signature[32:], "little") + GROUP_ORDER
    return signature[:32] + scalar.to_bytes(32, "little")
