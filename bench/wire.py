"""The codec beside msgspec, protobuf (upb) and cbor2, on the same content.

    python -m bench.wire [--json] [--rounds N]

Every candidate is measured in turn, round after round, in one process, so that whatever disturbs the
machine disturbs all of them; the figure is the median over the rounds. Ours checks every value and
gives an immutable result. The others are shown twice where it matters: as they come (protobuf
parses lazily, cbor2 gives a list that nobody checked) and, marked "checked", with the fields read,
the same bounds tested and the same frozen dataclass made of them.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from typing import Any

import cbor2
import msgspec
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.internal import api_implementation

from odsi_proto.units import Handle, LayerRange, Micros, ParticipantId, Position, RequestId, StageIndex, Tag
from odsi_proto.wire.messages import Commit
from odsi_proto.wire.step import DURATION_US_MAX, POSITIONS_MAX, StepHeader
from odsi_proto.wire.varint import Cursor

ROUNDS = 41
ROUND_S = 0.004
"""Long enough for the clock, short enough for a disturbance to hit few rounds of one candidate."""

Work = Callable[[], object]


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """One library on one content."""

    content: str
    library: str
    encode: Work
    decode: Work
    size_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """What was measured, in nanoseconds per call."""

    content: str
    library: str
    size_bytes: int
    encode_ns: float
    decode_ns: float

    @property
    def both_ns(self) -> float:
        return self.encode_ns + self.decode_ns


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
COMMIT = Commit(
    open_digest=b"\x55" * 32,
    request_id=RequestId(bytes(range(16))),
    lineage=0,
    stage=StageIndex(1),
    layers=LayerRange(10, 20),
    position_first=Position(0),
    position_end=Position(2_048),
    predecessor=ParticipantId(b"\x66" * 32),
    model_root=bytes(range(32)),
    profile=1,
    codec_in=2,
    codec_out=1,
    budget_us=Micros(20_000),
    tolerance_us=Micros(0),
    price=3,
    checkpoint_steps=0,
    checkpoint_us=Micros(0),
    retention_window=8,
    expiry_s=1_800_000_000,
    previous_commit=b"",
)


def main() -> int:
    """Measure everything, print a table or JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true", help="one JSON object instead of a table")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    options = parser.parse_args()
    assert api_implementation.Type() == "upb", "this protobuf is not the C implementation"
    figures = [figure for group in contents() for figure in measure(list(group), options.rounds)]
    if options.json:
        rows = [{**{f.name: getattr(figure, f.name) for f in fields(figure)}} for figure in figures]
        sys.stdout.write(json.dumps({"rounds": options.rounds, "figures": rows}) + "\n")
    else:
        sys.stdout.write("\n".join(table(figures)) + "\n")
    return 0


def contents() -> Iterator[Iterator[Candidate]]:
    """The candidates, content by content."""
    yield steps("step header", b"")
    yield steps("step of 1 KB", bytes(1_024))
    yield steps("step of 64 KB", bytes(65_536))
    yield commits()


def measure(candidates: list[Candidate], rounds: int) -> list[Figure]:
    """The medians of candidates that take turns."""
    works = [work for candidate in candidates for work in (candidate.encode, candidate.decode)]
    counts = [calibrated(work) for work in works]
    taken: list[list[float]] = [[] for _ in works]
    for _ in range(rounds):
        for index, work in enumerate(works):
            taken[index].append(timed(work, counts[index]) / counts[index])
    medians = [statistics.median(samples) for samples in taken]
    return [
        Figure(
            content=candidate.content,
            library=candidate.library,
            size_bytes=candidate.size_bytes,
            encode_ns=medians[2 * index],
            decode_ns=medians[2 * index + 1],
        )
        for index, candidate in enumerate(candidates)
    ]


def timed(work: Work, count: int) -> float:
    """Nanoseconds that ``count`` calls take."""
    calls = range(count)
    start = time.perf_counter_ns()
    for _ in calls:
        work()
    return time.perf_counter_ns() - start


def calibrated(work: Work) -> int:
    """How many calls fill a round."""
    timed(work, 200)  # warm
    return max(1, int(ROUND_S * 1e9 / (timed(work, 200) / 200)))


def table(figures: list[Figure]) -> Iterator[str]:
    """Lines for people; ratios are to ours."""
    heads = f"{'bytes':>7}{'encode ns':>11}{'decode ns':>11}{'both ns':>10}{'ours = 1':>10}"
    yield f"{'content':<15}{'library':<20}{heads}"
    ours = {figure.content: figure for figure in figures if figure.library == "odsi_proto"}
    for f in figures:
        ratio = f.both_ns / ours[f.content].both_ns
        times = f"{f.encode_ns:>11.0f}{f.decode_ns:>11.0f}{f.both_ns:>10.0f}{ratio:>10.2f}"
        yield f"{f.content:<15}{f.library:<20}{f.size_bytes:>7}{times}"


STEP_NUMBERS = ("handle", "lineage", "attempt", "position", "count", "remaining_us", "owd_us")
STEP_OCTETS = ("tag_before", "tag_after", "extension")


def steps(content: str, payload: bytes) -> Iterator[Candidate]:
    """A header, and the rows behind it as the library would carry them."""
    names = (*STEP_NUMBERS, *STEP_OCTETS)
    values = {name: getattr(HEADER, name) for name in names}
    if payload:
        values["payload"] = payload
    raw = HEADER.encode() + payload
    yield Candidate(
        content=content,
        library="odsi_proto",
        encode=HEADER.encode if not payload else (lambda: (HEADER.encode(), payload)),
        decode=(lambda: StepHeader.decode(Cursor(raw, 1))) if not payload else (lambda: _ours(raw)),
        size_bytes=len(raw),
    )
    yield from others(content, values)
    listed = cbor2.dumps(list(values.values()))
    yield Candidate(
        content=content,
        library="cbor2, checked",
        encode=lambda: cbor2.dumps([getattr(HEADER, name) for name in names] + [payload] * bool(payload)),
        decode=lambda: _checked(cbor2.loads(listed)),
        size_bytes=len(listed),
    )


def _ours(raw: bytes) -> tuple[StepHeader, memoryview]:
    cursor = Cursor(raw, 1)
    return StepHeader.decode(cursor), cursor.rest()


def _checked(values: list[Any]) -> StepHeader:
    """What cbor2's list needs to be as good as ours."""
    *numbers, before, after, extension = values[:10]
    for number in numbers:
        if type(number) is not int or number < 0:
            raise ValueError("not a number")
    if type(before) is not bytes or len(before) != 8 or type(after) is not bytes or len(after) != 8:
        raise ValueError("not a tag")
    if type(extension) is not bytes or len(extension) > 64:
        raise ValueError("not an extension")
    header = StepHeader(
        **dict(zip(STEP_NUMBERS, numbers, strict=True)),
        tag_before=Tag(before),
        tag_after=Tag(after),
        extension=extension,
    )
    if not header.count or header.end > POSITIONS_MAX or header.remaining_us > DURATION_US_MAX:
        raise ValueError("out of bounds")
    return header


def commits() -> Iterator[Candidate]:
    """The body of a COMMIT; ours is deterministic CBOR, pre-scanned."""
    raw = COMMIT.encode()
    yield Candidate(
        content="COMMIT",
        library="odsi_proto",
        encode=COMMIT.encode,
        decode=lambda: Commit.decode(raw),
        size_bytes=len(raw),
    )
    values: dict[str, Any] = {}
    for field in fields(COMMIT):
        value = getattr(COMMIT, field.name)
        if isinstance(value, LayerRange):
            values["layers_first"], values["layers_end"] = value.first, value.end
        elif field.name != "extensions":
            values[field.name] = value
    yield from others("COMMIT", values)


def others(content: str, values: dict[str, Any]) -> Iterator[Candidate]:
    """msgspec, protobuf and cbor2 with the same fields."""
    types = [(name, bytes if isinstance(value, bytes) else int) for name, value in values.items()]
    struct = msgspec.defstruct("Content", types, frozen=True, array_like=True)
    packed, encoder, decoder = struct(**values), msgspec.msgpack.Encoder(), msgspec.msgpack.Decoder(struct)
    pack = encoder.encode(packed)
    yield Candidate(
        content=content,
        library="msgspec",
        encode=lambda: encoder.encode(packed),
        decode=lambda: decoder.decode(pack),
        size_bytes=len(pack),
    )
    message_class = protobuf_class(values)
    message = message_class(**values)
    wire, names = message.SerializeToString(), tuple(values)
    yield Candidate(
        content=content,
        library="protobuf",
        encode=message.SerializeToString,
        decode=lambda: message_class.FromString(wire),
        size_bytes=len(wire),
    )
    yield Candidate(
        content=content,
        library="protobuf, read",
        encode=lambda: message_class(**values).SerializeToString(),
        decode=lambda: _read(message_class.FromString(wire), names),
        size_bytes=len(wire),
    )
    listed = list(values.values())
    raw = cbor2.dumps(listed)
    yield Candidate(
        content=content,
        library="cbor2",
        encode=lambda: cbor2.dumps(listed),
        decode=lambda: cbor2.loads(raw),
        size_bytes=len(raw),
    )


def _read(message: Any, names: tuple[str, ...]) -> tuple[Any, ...]:
    return tuple(getattr(message, name) for name in names)


def protobuf_class(values: dict[str, Any]) -> Any:
    """A message type with these fields."""
    kinds = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="content.proto", package="bench", syntax="proto3")
    described = file.message_type.add(name="Content")
    for number, (name, value) in enumerate(values.items(), start=1):
        kind = kinds.TYPE_BYTES if isinstance(value, bytes) else kinds.TYPE_UINT64
        described.field.add(name=name, number=number, type=kind, label=kinds.LABEL_OPTIONAL)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("bench.Content"))


if __name__ == "__main__":
    sys.exit(main())
