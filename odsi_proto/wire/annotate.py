"""Explains bytes of the wire field by field, for people: what ``odsi decode`` shows.

The layouts below are written a second time, as data, so that malformed bytes can be followed up to
where they go wrong. Whether the whole is right is then asked of the decoders themselves.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import Enum, IntEnum
from typing import TypeAlias

from odsi_proto.errors import Incomplete, Malformed
from odsi_proto.wire import cbor
from odsi_proto.wire import frames as fr
from odsi_proto.wire.annotate_layouts import BODIES, FRAMES, STATUS_RECORD, STEP, Item, Layout, Names
from odsi_proto.wire.codepoints import ErrorCode, FrameType, StreamType, is_ignorable
from odsi_proto.wire.identity import Delegation, SignedMessage
from odsi_proto.wire.messages import Cancel, Commit, Hello, Open
from odsi_proto.wire.step import StepHeader
from odsi_proto.wire.varint import VARINT_MAX, Cursor

FRAME_BYTES_MAX = VARINT_MAX
"""Nobody's limits apply to bytes that are only looked at; what is not there can not be shown anyway."""


class Kind(Enum):
    """What bytes are taken for."""

    AUTO = "auto"
    CONTROL = "control"
    """A control stream: its type, then frames."""
    FRAME = "frame"
    """Frames without the stream's type."""
    STEP = "step"
    """A step stream: its type, a header, rows."""
    CBOR = "cbor"
    """One item of any meaning."""
    HELLO = "hello"
    OPEN = "open"
    COMMIT = "commit"
    CANCEL = "cancel"
    DELEGATION = "delegation"
    SIGNED = "signed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    """One field."""

    offset: int
    size: int
    """Bytes of the field itself; 0 for what is only said about the bytes before."""
    depth: int
    name: str
    value: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """Something wrong, and where it was noticed."""

    offset: int
    what: str


@dataclass(slots=True, kw_only=True)
class Annotation:
    """All that could be said of some bytes."""

    kind: Kind
    notes: list[Note] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)


def annotate(data: bytes, kind: Kind = Kind.AUTO) -> Annotation:
    """What ``data`` is, up to where it stops making sense; never raises."""
    kind = guess(data) if kind is Kind.AUTO else kind
    found = Annotation(kind=kind)
    walker = _Walker(data, found)
    try:
        walker.whole(kind)
    except (Malformed, Incomplete) as error:
        name = "it ends inside" if isinstance(error, Incomplete) else ""
        found.problems.append(Problem(offset=walker.at, what=f"{name} {error}".strip()))
    return found


def guess(data: bytes) -> Kind:
    """The kind that the first bytes look like."""
    if not data:
        return Kind.CBOR
    if data[:2] == b"\x00\x00":  # the stream's type, then HELLO's
        return Kind.CONTROL
    if data[0] == StreamType.STEP and data[1:3] != b"\x40\x40":  # else AUTH, of 64 bytes
        return Kind.STEP
    if data[0] >> 5 != 4:
        return Kind.FRAME
    if data[0] == 0x83 and data[1:2] and data[1] >> 5 != 2:
        return Kind.CBOR
    return _BY_COUNT.get(data[0] & 0x1F, Kind.CBOR)


def describe(frame: fr.Frame) -> str:  # noqa: PLR0911  # one return for each frame
    """A frame in one line."""
    match frame:
        case fr.HelloFrame():
            return f"HELLO, {len(frame.body)} bytes"
        case fr.AuthFrame():
            return f"AUTH, signature {frame.signature[:4].hex()}…"
        case fr.OpenFrame() | fr.CommitFrame():
            name = FrameType(frame.type).name
            return f"{name} handle {frame.handle} stage {frame.stage}, {len(frame.message)} bytes"
        case fr.AttachFrame():
            return f"ATTACH request {frame.request_id.hex()}"
        case fr.AttachedFrame():
            return f"ATTACHED request {frame.request_id.hex()} handle {frame.handle}"
        case fr.RefuseFrame():
            where = f"handle {frame.handle} stage {frame.stage} lineage {frame.lineage}"
            code = ErrorCode.name_of(frame.code)
            return f"REFUSE {where} position {frame.position}: {code} {frame.reason!r}"
        case fr.StatusFrame():
            steps = ", ".join(f"{r.stage}@{r.position}+{r.count}" for r in frame.records[:4])
            more = ", …" if len(frame.records) > 4 else ""
            return f"STATUS handle {frame.handle}, {len(frame.records)} records: {steps}{more}".rstrip(": ")
        case fr.CancelFrame():
            return f"CANCEL, {len(frame.message)} bytes"
        case fr.GoawayFrame():
            return f"GOAWAY {ErrorCode.name_of(frame.code)} {frame.reason!r}"
        case fr.AbandonFrame():
            return f"ABANDON handle {frame.handle}: {ErrorCode.name_of(frame.code)} {frame.reason!r}"
        case fr.UnknownFrame():  # pragma: no branch - there are no others
            return f"frame of type {frame.type:#x} ({_meaning(frame.type)}), {len(frame.body)} bytes"


class _Walker:
    """Goes through the bytes and takes notes."""

    def __init__(self, data: bytes, found: Annotation) -> None:
        self.at = 0
        self._data = data
        self._view = memoryview(data)
        self._found = found
        self._depth = 0
        self._end = len(data)
        """Where the part under way ends: a frame's payload, or all."""

    def whole(self, kind: Kind) -> None:
        """Everything, from the first byte to the last."""
        match kind:
            case Kind.CONTROL:
                self._stream_type(StreamType.CONTROL)
                self._frames()
            case Kind.STEP:
                self._stream_type(StreamType.STEP)
                self._step()
            case Kind.FRAME:
                self._frames()
            case _:
                layout = BODIES.get(kind.value, Item(kind.value))
                self._item(layout, 0)
                if self.at < self._end:
                    raise Malformed(f"{self._end - self.at} bytes after the outermost item")
                self._judge(kind.value, 0, self._end)

    def _stream_type(self, expected: StreamType) -> None:
        at = self.at
        number = self._varint()
        name = next((known.name for known in StreamType if known == number), "")
        self._note(at, "stream type", name or f"{number:#x} ({_meaning(number)})")
        if number != expected:
            raise Malformed(f"not a {expected.name} stream")

    def _frames(self) -> None:
        while self.at < self._end:
            start = self.at
            number = self._varint()
            known = number in FRAMES
            name = FrameType(number).name if known else f"{number:#x} ({_meaning(number)})"
            self._note(start, "frame", name)
            with self._deeper():
                at = self.at
                length = self._varint()
                self._note(at, "length", str(length))
                if self.at + length > self._end:
                    missing = self.at + length - self._end
                    self._fields(FRAMES.get(number, ()))
                    raise Incomplete(f"the payload: {missing} bytes are missing")
                self._payload(number, start, self.at + length)

    def _payload(self, number: int, start: int, end: int) -> None:
        """The fields of a frame that is all here."""
        outer, self._end = self._end, end
        try:
            self._fields(FRAMES.get(number, (("body", "rest"),)))
        except Incomplete as error:
            raise Malformed(f"the frame ends inside {error}") from error
        if self.at < end:
            raise Malformed(f"{end - self.at} bytes after the last field")
        self._end = outer
        try:
            frame = fr.decode_frame(Cursor(self._data[start:end]), payload_bytes_max=FRAME_BYTES_MAX)
        except Malformed as error:
            self._found.problems.append(Problem(offset=start, what=str(error)))
        else:
            self._note(end, "in one line", describe(frame))

    def _step(self) -> None:
        start = self.at
        self._fields(STEP)
        try:
            StepHeader.decode(Cursor(self._data, start))
        except Malformed as error:
            self._found.problems.append(Problem(offset=start, what=str(error)))
        at, self.at = self.at, self._end
        self._note(at, "payload", f"{self.at - at} bytes")

    def _fields(self, layout: Layout) -> None:
        for name, form in layout:
            at = self.at
            match form:
                case "varint":
                    self._note(at, name, str(self._varint()))
                case "code":
                    self._note(at, name, ErrorCode.name_of(self._varint()))
                case "text" | "short":
                    length = self._varint()
                    raw = self._take(length)
                    shown = repr(raw.decode(errors="replace")) if form == "text" else _octets(raw)
                    self._note(at, name, f"{length} bytes: {shown}")
                case "rest":
                    raw = self._take(self._end - self.at)
                    self._note(at, name, _octets(raw))
                case "records":
                    self._records()
                case int():
                    self._note(at, name, _octets(self._take(form)))
                case _:
                    self._nested(name, form)

    def _records(self) -> None:
        index = 0
        while self.at < self._end:
            self._note(self.at, f"record {index}", "")
            with self._deeper():
                self._fields(STATUS_RECORD)
            index += 1

    def _nested(self, name: str, what: str) -> None:
        """CBOR up to the end of the frame; what is wrong with it does not stop the frame."""
        start, end = self.at, self._end
        self._note(start, name, f"{end - start} bytes")
        problems = len(self._found.problems)
        with self._deeper():
            try:
                self._item(BODIES[what.partition(" ")[0]], 0, what=what.partition(" ")[2])
            except (Malformed, Incomplete) as error:
                self._found.problems.append(Problem(offset=self.at, what=str(error)))
        if problems == len(self._found.problems):
            self._judge(what, start, end)
        self.at = end

    def _item(self, layout: Item, level: int, *, what: str = "", name: str = "") -> None:
        """One CBOR item and those in it."""
        at = self.at
        name = name or layout.name
        if level > cbor.DEPTH_MAX:
            raise Malformed(f"arrays nest deeper than {cbor.DEPTH_MAX}")
        major, argument, self.at = cbor.read_head(self._view[: self._end], at)
        match major:
            case 0:
                self._note(at, name, _number(argument, layout.names))
            case 2 | 3:
                if self.at + argument > self._end:
                    raise Malformed(f"{name} is cut")
                within = BODIES.get(what) if layout.is_body else layout.within
                if within is not None:
                    self._note(at, name, f"{argument} bytes of CBOR")
                    with self._deeper(), self._until(self.at + argument):
                        self._item(within, level)
                    return
                raw = self._take(argument)
                self._note(at, name, repr(raw.decode(errors="replace")) if major == 3 else _octets(raw))
            case 4:
                self._note(at, name, f"array of {argument}")
                with self._deeper():
                    for index in range(argument):
                        inner = layout.item(index)
                        numbered = f"{inner.name} {index}" if layout.each is not None else inner.name
                        self._item(inner, level + 1, what=what, name=numbered)
            case _:
                raise Malformed(f"CBOR major type {major} is not used")

    def _judge(self, what: str, start: int, end: int) -> None:
        """What the decoder itself says of a whole message."""
        try:
            _judgement(what, self._data[start:end])
        except Malformed as error:
            self._found.problems.append(Problem(offset=start, what=str(error)))

    def _varint(self) -> int:
        cursor = Cursor(self._view[: self._end], self.at)
        value = cursor.varint()
        self.at = cursor.at
        return value

    def _take(self, count: int) -> bytes:
        if self.at + count > self._end:
            raise Incomplete(f"a field of {count} bytes")
        self.at += count
        return self._data[self.at - count : self.at]

    def _note(self, start: int, name: str, value: str) -> None:
        size = self.at - start
        self._found.notes.append(Note(offset=start, size=size, depth=self._depth, name=name, value=value))

    @contextmanager
    def _deeper(self) -> Iterator[None]:
        self._depth += 1
        try:
            yield
        finally:
            self._depth -= 1

    @contextmanager
    def _until(self, end: int) -> Iterator[None]:
        outer, self._end = self._end, end
        try:
            yield
            if self.at < end:
                raise Malformed(f"{end - self.at} bytes after the item")
        finally:
            self._end = outer


_Decoder: TypeAlias = Callable[[bytes], object]
_DECODERS: dict[str, _Decoder] = {
    "hello": Hello.decode,
    "open": Open.decode,
    "commit": Commit.decode,
    "cancel": Cancel.decode,
    "delegation": Delegation.decode,
    "cbor": cbor.decode,
}
_BY_COUNT = {
    2: Kind.DELEGATION,
    3: Kind.SIGNED,
    4: Kind.CANCEL,
    11: Kind.HELLO,
    17: Kind.OPEN,
    23: Kind.COMMIT,
}
"""From the number of fields of an array to what has as many."""


def _judgement(what: str, data: bytes) -> None:
    container, _, domain = what.partition(" ")
    if container != "signed":
        _DECODERS[container](data)
    elif domain:
        _DECODERS[domain](SignedMessage.decode(domain, data).body)
    else:
        _any_domain(data)


def _any_domain(data: bytes) -> None:
    """A signed message whose frame is not here: the domain is the one that its signature fits."""
    error: Malformed | None = None
    for domain in ("open", "commit", "cancel"):
        try:
            SignedMessage.decode(domain, data)
        except Malformed as found:
            error = found
        else:
            return
    assert error is not None
    raise Malformed(f"in no domain: {error}")


def _meaning(number: int) -> str:
    if number % 62 == 27:
        return "reserved, to be ignored"
    return "unknown, odd: to be ignored" if is_ignorable(number) else "unknown, even: must be understood"


def _number(value: int, names: Names) -> str:
    match names:
        case None:
            return str(value)
        case "type":
            return f"{value:#x} ({_meaning(value)})"
    members: Sequence[IntEnum] = tuple(names)
    name = next((member.name for member in members if member == value), None)
    return f"{value} ({name if name is not None else _meaning(value)})"


def _octets(raw: bytes) -> str:
    return raw.hex() if len(raw) <= 40 else f"{len(raw)} bytes: {raw[:16].hex()}…"
