"""The layout tables of parts 01 to 03, field by field and bound by bound, against the frames' code.

Frames are written here from the tables alone and read by the code, and the other way round.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import pytest
from specs.documents import Row, layouts

from odsi_proto.errors import Malformed
from odsi_proto.units import Handle, Micros, Position, RequestId, StageIndex, Tag
from odsi_proto.wire import frames
from odsi_proto.wire.codepoints import StreamType
from odsi_proto.wire.frames import FRAMES, StatusRecord, decode_frame, encode_frame
from odsi_proto.wire.step import StepHeader
from odsi_proto.wire.varint import VARINT_MAX, Cursor

LAYOUTS = layouts()
RECORD = StatusRecord(
    stage=StageIndex(3),
    lineage=1,
    position=Position(300),
    count=2,
    remaining_us=Micros(70_000),
    transfer_us=Micros(4),
    queue_us=Micros(5),
    compute_us=Micros(6),
    coordination_us=Micros(7),
    output_bytes=1_186,
    flags=9,
    leaf=b"leaf",
    extension=b"extension",
)
STEP = StepHeader(
    handle=Handle(70),
    lineage=2,
    attempt=1,
    position=Position(0),
    count=1,
    remaining_us=Micros(80_000),
    owd_us=Micros(90),
    tag_before=Tag(b"before.."),
    tag_after=Tag(b"after..."),
    extension=b"extension",
)
SAMPLES: dict[str, Any] = {
    "HelloFrame": frames.HelloFrame(body=b"hello"),
    "AuthFrame": frames.AuthFrame(signature=bytes(range(64))),
    "OpenFrame": frames.OpenFrame(handle=Handle(70), stage=StageIndex(1), message=b"open"),
    "CommitFrame": frames.CommitFrame(handle=Handle(71), stage=StageIndex(2), message=b"commit"),
    "AttachFrame": frames.AttachFrame(request_id=RequestId(b"r" * 16), return_token=b"t" * 16),
    "AttachedFrame": frames.AttachedFrame(request_id=RequestId(b"r" * 16), handle=Handle(72)),
    "RefuseFrame": frames.RefuseFrame(
        handle=Handle(73),
        stage=StageIndex(3),
        code=9,
        lineage=4,
        position=Position(5),
        queue_us=Micros(6_000),
        reason="größer",
    ),
    "StatusFrame": frames.StatusFrame(
        handle=Handle(74), credit_steps=68, credit_bytes=80_000, records=(RECORD, RECORD)
    ),
    "CancelFrame": frames.CancelFrame(message=b"cancel"),
    "GoawayFrame": frames.GoawayFrame(code=20, reason="leaving"),
    "AbandonFrame": frames.AbandonFrame(handle=Handle(75), code=18, reason="gone"),
    "StatusRecord": RECORD,
    "StepHeader": STEP,
}


def varint(value: int) -> bytes:
    """Part 02 section 1."""
    for prefix, size in enumerate((1, 2, 4, 8)):
        if value < 1 << (8 * size - 2):
            return (value | prefix << (8 * size - 2)).to_bytes(size, "big")
    raise ValueError(value)


def write(rows: list[Row], values: Mapping[str, Any]) -> bytes:
    """The payload that a layout table describes."""
    out = b""
    for row in rows:
        value = values[row.field]
        match row.type:
            case "varint":
                out += varint(value)
            case "bytes" if row.bound.startswith("exactly"):
                out += value
            case "bytes":
                out += varint(len(value)) + value
            case "text":
                out += varint(len(value.encode())) + value.encode()
            case "rest":
                out += value
            case "records":
                out += b"".join(write(LAYOUTS["StatusRecord"], _values(record)) for record in value)
            case _:
                raise AssertionError(f"{row.field}: no type {row.type!r} in part 02")
    return out


def read(name: str, payload: bytes) -> Any:
    """What the code makes of a payload."""
    if name == "StepHeader":
        return StepHeader.decode(Cursor(payload))
    if name == "StatusRecord":
        frame = read("StatusFrame", varint(0) * 3 + payload)
        return frame.records[0]
    raw = varint(SAMPLES[name].type) + varint(len(payload)) + payload
    return decode_frame(Cursor(raw), payload_bytes_max=1 << 20)


def _values(sample: Any) -> dict[str, Any]:
    return {field.name: getattr(sample, field.name) for field in dataclasses.fields(sample)}


def _edges(row: Row) -> tuple[list[Any], list[Any]]:
    """Values at the bounds of a field, and values one beyond."""
    words = row.bound.split()
    edges: tuple[list[Any], list[Any]]
    match row.type, words:
        case "varint", ["any"]:
            edges = [0, VARINT_MAX], []
        case "varint", ["below", last]:
            edges = [0, int(last) - 1], [int(last)]
        case "varint", ["at", "most", last]:
            edges = [0, int(last)], [int(last) + 1]
        case "varint", [first, "to", last]:
            edges = [int(first), int(last)], [int(first) - 1, int(last) + 1]
        case "bytes", ["exactly", size]:
            edges = [bytes(int(size))], []
        case "bytes", ["at", "most", size]:
            edges = [b"", bytes(int(size))], [bytes(int(size) + 1)]
        case "text", ["at", "most", size]:
            edges = ["", "x" * int(size)], ["x" * (int(size) + 1), "é" * (int(size) // 2 + 1)]
        case "records", ["at", "most", count]:
            edges = [(), (RECORD,) * int(count)], [(RECORD,) * (int(count) + 1)]
        case "rest", _:
            edges = [], []
        case _:
            raise AssertionError(f"{row.field}: no test for the bound {row.bound!r} of {row.type}")
    return edges


EDGES = [
    pytest.param(name, row.field, value, inside, id=f"{name}.{row.field}={str(value)[:12]}")
    for name, rows in LAYOUTS.items()
    for row in rows
    for inside, values in zip((True, False), _edges(row), strict=True)
    for value in values
]


def test_every_frame_has_one_layout_table() -> None:
    coded = {cls.__name__ for cls in FRAMES.values()} | {"StatusRecord", "StepHeader"}
    assert set(LAYOUTS) == coded == set(SAMPLES)


@pytest.mark.parametrize("name", LAYOUTS)
def test_the_table_lists_the_fields_in_the_order_of_the_code(name: str) -> None:
    assert [row.field for row in LAYOUTS[name]] == list(_values(SAMPLES[name]))


@pytest.mark.parametrize("name", LAYOUTS)
def test_what_is_written_from_the_table_is_what_the_code_writes(name: str) -> None:
    written, sample = write(LAYOUTS[name], _values(SAMPLES[name])), SAMPLES[name]
    match sample:
        case StepHeader():
            assert sample.encode() == varint(StreamType.STEP) + written
        case StatusRecord():
            assert sample.encode() == written
        case _:
            assert encode_frame(sample) == varint(sample.type) + varint(len(written)) + written
    assert read(name, written) == sample


@pytest.mark.parametrize(("name", "field", "value", "inside"), EDGES)
def test_the_code_accepts_up_to_the_bound_and_nothing_beyond(
    name: str, field: str, value: Any, inside: bool
) -> None:
    values = {**_values(SAMPLES[name]), field: value}
    payload = write(LAYOUTS[name], values)
    if inside:
        assert getattr(read(name, payload), field) == value
        return
    with pytest.raises(Malformed):
        read(name, payload)


@pytest.mark.spec("WIRE-004")
@pytest.mark.parametrize("name", [name for name in LAYOUTS if name not in {"StepHeader", "StatusRecord"}])
def test_a_payload_with_bytes_missing_or_left_over_is_malformed(name: str) -> None:
    payload = write(LAYOUTS[name], _values(SAMPLES[name]))
    first = LAYOUTS[name][0]
    if first.type != "rest":
        with pytest.raises(Malformed):
            read(name, payload[:0])
    if LAYOUTS[name][-1].type not in {"rest", "records"}:
        for wrong in (payload[:-1], payload + b"\0"):
            with pytest.raises(Malformed):
                read(name, wrong)
