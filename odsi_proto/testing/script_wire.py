"""One direction of a connection in a script: its streams, what is withheld of them, what is altered."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from odsi_proto.statemachine import effects as fx
from odsi_proto.testing.script_log import Handles, describe_frame, describe_step
from odsi_proto.testing.script_names import Names
from odsi_proto.testing.script_words import CommandError
from odsi_proto.units import ConnectionId
from odsi_proto.wire.codepoints import StreamType
from odsi_proto.wire.frames import Frame, UnknownFrame, decode_frame, encode_frame
from odsi_proto.wire.step import StepHeader
from odsi_proto.wire.varint import Cursor, encode_varint

CONTROL = "control"
_FRAME_BYTES_MAX = 1 << 24
"""What a script sends is its own affair: only the receiver's bounds matter."""

StepParts = tuple[StepHeader, bytes]
FrameChange = Callable[[Frame], Frame]
StepChange = Callable[[StepParts], StepParts]


@dataclass(slots=True)
class Changes:
    """What an adversary does to the next frame of a type, or the next step, in one direction."""

    frames: dict[str, FrameChange] = field(default_factory=dict)
    """By the name of the frame's type."""
    step: StepChange | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Outgoing:
    """Bytes for one stream, and what they mean."""

    stream: int
    data: bytes
    fin: bool = False
    label: str = ""
    """The stream's name, unless it is the control stream."""
    frames: tuple[Frame, ...] = ()
    step: StepParts | None = None
    altered: frozenset[int] = frozenset()
    """Which frames are not what the sender wrote; 0 is the step."""

    def describe(self, names: Names, flow: "Flow") -> Iterator[tuple[str, tuple[str, ...]]]:
        """Each frame, or the step; of bytes that are neither, their number."""
        if self.step is not None:
            header, payload = self.step
            yield describe_step(names, header, payload, flow.handles), ()
        elif not self.frames:
            yield f"{names.octets(self.data)}{' and FIN' if self.fin else ''}", ()
        for frame in self.frames:
            yield describe_frame(names, frame, flow.handles, flow.other.handles)

    def remark(self, at: int) -> str:
        """What is to be said of a frame, or of the step."""
        return "altered" if at in self.altered else ""


@dataclass(slots=True)
class Flow:
    """From one participant to another."""

    sender: str
    receiver: str
    sender_end: ConnectionId
    receiver_end: ConnectionId
    changes: Changes
    first_stream: int
    """The number of the control stream; later ones are four apart, as in QUIC."""
    label: str = ""
    """Tells a second connection of the same two from the first."""
    opposite: "Flow | None" = None
    is_cut: bool = False
    """Whether what is sent goes nowhere: the sender's end is closed."""
    is_deaf: bool = False
    """Whether nothing is received any more: the receiver's end is closed."""
    handles: Handles = field(default_factory=dict)
    """Of the requests that the sender has named."""
    steps: dict[str, StepParts] = field(default_factory=dict)
    """Every step sent, by the name of its stream."""
    arrived: set[int] = field(default_factory=set)
    """Streams of which the receiver has something."""
    finished: set[int] = field(default_factory=set)
    _streams: dict[str, int] = field(default_factory=dict)
    _kept: dict[int, tuple[bytes, bool]] = field(default_factory=dict)
    """What is withheld of a stream, and whether FIN is at its end."""
    _reset: set[int] = field(default_factory=set)
    _has_begun: bool = False

    def __post_init__(self) -> None:
        self._streams[CONTROL] = self.first_stream

    @property
    def other(self) -> "Flow":
        """The other direction."""
        assert self.opposite is not None
        return self.opposite

    @property
    def who(self) -> str:
        """For the log."""
        return f"{self.sender} -> {self.receiver}{self.label}"

    def control(self, data: bytes) -> Outgoing:
        """What an endpoint appends to its control stream, altered where the script says so."""
        cursor = Cursor(data)
        if not self._has_begun:
            cursor.varint()
        written = []
        while cursor.left:
            written.append(decode_frame(cursor, payload_bytes_max=_FRAME_BYTES_MAX))
        frames = tuple(map(self._changed, written))
        altered = frozenset(at for at, frame in enumerate(frames) if frame is not written[at])
        return self.frames(frames, altered)

    def frames(self, frames: tuple[Frame, ...], altered: frozenset[int] = frozenset()) -> Outgoing:
        """Frames for the control stream, which begins with its type."""
        head = b"" if self._has_begun else encode_varint(StreamType.CONTROL)
        self._has_begun = True
        data = head + b"".join(map(encode_frame, frames))
        return Outgoing(stream=self.first_stream, data=data, frames=frames, altered=altered)

    def step(self, effect: fx.SendStep) -> Outgoing:
        """What an endpoint sends as a step, altered where the script says so."""
        cursor = Cursor(effect.header)
        cursor.varint()
        parts = (StepHeader.decode(cursor), bytes(effect.payload))
        change, self.changes.step = self.changes.step, None
        if change is None:
            return self.step_of(parts)
        return self.step_of(change(parts), altered=frozenset({0}))

    def step_of(self, parts: StepParts, altered: frozenset[int] = frozenset()) -> Outgoing:
        """A step on a stream of its own."""
        label = f"step-{len(self.steps) + 1}"
        self.steps[label] = parts
        header, payload = parts
        return Outgoing(
            stream=self._number(label),
            data=header.encode() + payload,
            fin=True,
            label=label,
            step=parts,
            altered=altered,
        )

    def raw(self, stream: str, data: bytes, *, fin: bool) -> Outgoing:
        """Any bytes on any stream; a name that is not known yet is a new one."""
        self._has_begun = self._has_begun or stream == CONTROL
        return Outgoing(stream=self._number(stream), data=data, fin=fin, label=stream)

    def stream(self, name: str) -> int:
        """The number of a stream by its name."""
        if name not in self._streams:
            raise CommandError(f"no stream {name!r} on {self.who}; there are {', '.join(self._streams)}")
        return self._streams[name]

    def stream_name(self, number: int) -> str:
        """A stream's name."""
        return next((name for name, known in self._streams.items() if known == number), str(number))

    def has_leftover(self, stream: int) -> bool:
        """Whether something of a stream is withheld: what follows on it has to wait."""
        return stream in self._kept

    def keep(self, sent: Outgoing) -> None:
        """Withhold what is sent."""
        before, _ = self._kept.get(sent.stream, (b"", False))
        self._kept[sent.stream] = (before + sent.data, sent.fin)

    def kept(self) -> tuple[int, ...]:
        """Streams of which something is withheld, oldest first."""
        return tuple(self._kept)

    def take(self, stream: int, bytes_max: int | None = None) -> tuple[bytes, bool, int]:
        """What is withheld of a stream, at most so many bytes; whether FIN follows; and what is left."""
        if stream not in self._kept:
            raise CommandError(f"nothing of {self.stream_name(stream)} is withheld on {self.who}")
        data, fin = self._kept.pop(stream)
        taken = data if bytes_max is None else data[:bytes_max]
        rest = data[len(taken) :]
        if rest:
            self._kept[stream] = (rest, fin)
        return taken, fin and not rest, len(rest)

    def drop(self, stream: int) -> None:
        """What has not arrived of a stream never will."""
        self._kept.pop(stream, None)
        self._reset.add(stream)

    def forget(self, stream: int) -> None:
        """What is withheld of a stream was never sent; a control stream that has not arrived begins anew."""
        self.take(stream)
        if stream == self.first_stream and stream not in self.arrived:
            self._has_begun = False

    def is_reset(self, stream: int) -> bool:
        """Whether the sender has given the stream up."""
        return stream in self._reset

    def _changed(self, frame: Frame) -> Frame:
        name = "UNKNOWN" if isinstance(frame, UnknownFrame) else frame.type.name
        change = self.changes.frames.pop(name, None)
        return frame if change is None else change(frame)

    def _number(self, name: str) -> int:
        return self._streams.setdefault(name, self.first_stream + 4 * len(self._streams))
