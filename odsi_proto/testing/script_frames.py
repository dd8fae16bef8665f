"""Frames and step headers from the words of a script: forged ones, and altered copies of real ones."""

from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any

from odsi_proto.testing.script_wire import Flow, FrameChange, StepParts
from odsi_proto.testing.script_words import (
    CommandError,
    Words,
    duration_us,
    member_of,
    number,
    numbers,
    octets,
    plain,
)
from odsi_proto.testing.script_world import LAYOUT, World
from odsi_proto.units import Handle, Micros, Position, RequestId, StageIndex, Tag
from odsi_proto.wire import frames as wire
from odsi_proto.wire.codepoints import ErrorCode
from odsi_proto.wire.identity import SignedMessage
from odsi_proto.wire.messages import Cancel, Extension, Hello, Open
from odsi_proto.wire.step import StepHeader

Parser = Callable[[str], object]
_DURATIONS = {"remaining_us": duration_us, "owd_us": duration_us}
_HEADER_NUMBERS = ("handle", "lineage", "attempt", "position", "count")
_CLASSES: dict[str, type[Any]] = {
    **{kind.type.name: kind for kind in wire.FRAMES.values()},
    "UNKNOWN": wire.UnknownFrame,
}


def request_named(world: World, name: str) -> RequestId:
    """The id of ``request-0``."""
    for request, known in world.names.requests.items():
        if known == name:
            return request
    raise CommandError(f"no request {name!r}; there are {', '.join(world.names.requests.values()) or 'none'}")


def request_of(world: World, words: Words) -> RequestId:
    """``request=``, or the request opened last."""
    named = words.option("request", lambda text: request_named(world, text))
    if named is not None:
        return named
    if world.latest is None:
        raise CommandError("no request was opened yet")
    return world.latest


def forged_frame(world: World, words: Words, sender: str) -> wire.Frame:
    """A frame by its type and all its fields."""
    kind = words.word("a frame type")
    frame_class, parsers = _parsers(world, kind, sender)
    given = words.options(parsers)
    if frame_class is wire.RefuseFrame:
        given = {"lineage": 0, "position": Position(0), "queue_us": Micros(0), "reason": "forged", **given}
    if frame_class is wire.StatusFrame:
        given = {"credit_steps": 0, "credit_bytes": 0, **given}
    if frame_class is wire.AbandonFrame:
        given = {"reason": "forged", **given}
    missing = [name for name in parsers if name not in given]
    if missing:
        raise CommandError(f"{kind} needs {', '.join(f'{name}=' for name in missing)}")
    words.end(", ".join(parsers))
    frame: wire.Frame = frame_class(**given)
    return frame


def frame_change(world: World, words: Words, kind: str, sender: str) -> FrameChange:
    """What turns the next frame of a type into another."""
    if kind == "HELLO":
        return _hello_change(words)
    if kind == "OPEN":
        return _open_change(world, words, sender)
    _, parsers = _parsers(world, kind, sender)
    given = words.options(parsers)
    words.end(", ".join(parsers))
    return lambda frame: replace(frame, **given)  # type: ignore[arg-type]  # fields of this very class


def step_change(world: World, words: Words, request: RequestId | None) -> Callable[[StepParts], StepParts]:
    """What turns a step into another: any field of its header, and its rows."""
    parsers: dict[str, Parser] = {**dict.fromkeys(_HEADER_NUMBERS, number), **_DURATIONS}
    parsers["extension"] = octets
    parsers["tag_before"] = parsers["tag_after"] = lambda text: _tag(world, request, text)
    given = words.options(parsers)
    fill, rows = words.option("fill", number), words.option("rows", number)
    words.end(", ".join((*parsers, "fill", "rows")))

    def change(parts: StepParts) -> StepParts:
        header, payload = parts
        if fill is not None or rows is not None:
            size = len(payload) if rows is None else LAYOUT.payload_bytes(rows)
            payload = bytes([payload[0] if fill is None else fill]) * size
        return replace(header, **given), payload  # type: ignore[arg-type]  # parsed by name

    return change


def forged_step(world: World, words: Words, flow: Flow) -> StepParts:
    """A step that continues the request's history, but for what the words say."""
    request = request_of(world, words)
    handles = [handle for handle, named in flow.handles.items() if named == request]
    position, rows = words.option("position", number), words.option("count", number) or 1
    if position is None:
        raise CommandError("a step needs position=")
    header = StepHeader(
        handle=handles[-1] if handles else Handle(0),
        lineage=0,
        attempt=0,
        position=Position(position),
        count=rows,
        remaining_us=Micros(1_000_000),
        owd_us=Micros(0),
        tag_before=world.names.tag_at(request, Position(position)),
        tag_after=world.names.tag_at(request, Position(position + rows)),
    )
    return step_change(world, words, request)((header, b"\x01" * LAYOUT.payload_bytes(rows)))


def _parsers(world: World, kind: str, sender: str) -> tuple[type[Any], dict[str, Parser]]:
    """The class of a frame type, and how each of its fields is read."""
    if kind not in _CLASSES:
        raise CommandError(f"no frame type {kind!r}; there are {', '.join(_CLASSES)}")
    known: dict[str, Parser] = {
        "code": member_of(ErrorCode),
        "reason": plain,
        "message": lambda text: _message(world, kind, text, sender),
        "request_id": lambda text: request_named(world, text),
        "return_token": lambda text: _token(world, text),
        "body": octets,
        "signature": octets,
        "records": _records,
        "queue_us": duration_us,
    }
    frame_class = _CLASSES[kind]
    return frame_class, {field.name: known.get(field.name, number) for field in fields(frame_class)}


def _message(world: World, kind: str, text: str, sender: str) -> bytes:
    """A signed message that was sent before, ``request-0`` or of a COMMIT ``request-0/1``; or bytes.

    ``forged`` is a CANCEL of the request opened last that ``sender`` signs.
    """
    if not text.startswith("request-"):
        if text != "forged":
            return octets(text)
        if world.latest is None or kind != "CANCEL":
            raise CommandError("only a CANCEL of an open request can be forged")
        cancel = Cancel(request_id=world.latest, lineage=0, code=ErrorCode.CANCELLED)
        return SignedMessage.sign(world.node(sender).signer, "cancel", cancel.encode()).encode()
    name, _, stage = text.partition("/")
    request = request_named(world, name)
    found = {
        "OPEN": world.opens.get(request),
        "CANCEL": world.cancels.get(request),
        "COMMIT": world.commits.get((request, int(stage or 0))) if (stage or "0").isdecimal() else None,
    }.get(kind)
    if found is None:
        raise CommandError(f"no {kind} of {text} was sent before")
    return found


def _token(world: World, text: str) -> bytes:
    if not text.startswith("request-"):
        return octets(text)
    request = request_named(world, text)
    for token, owner in world.names.tokens.items():
        if owner == request:
            return token
    raise CommandError(f"no ATTACH of {text} was sent before")


def _records(text: str) -> tuple[wire.StatusRecord, ...]:
    """Status records that say nothing but ``stage:position``, between commas."""
    found = []
    for item in text.split(","):
        stage, _, position = item.partition(":")
        zero = Micros(0)
        found.append(
            wire.StatusRecord(
                stage=StageIndex(number(stage)),
                lineage=0,
                position=Position(number(position)),
                count=1,
                remaining_us=zero,
                transfer_us=zero,
                queue_us=zero,
                compute_us=zero,
                coordination_us=zero,
                output_bytes=0,
            )
        )
    return tuple(found)


def _tag(world: World, request: RequestId | None, text: str) -> Tag:
    """``H3``, the history's tag at position 3, or 8 bytes."""
    if text.startswith("H") and text[1:].isdecimal() and request is not None:
        return world.names.tag_at(request, Position(int(text[1:])))
    tag = octets(text)
    if len(tag) != 8:
        raise CommandError("expected H and a position, or 8 bytes as 00*8")
    return Tag(tag)


def _hello_change(words: Words) -> FrameChange:
    parsers: dict[str, Parser] = {
        "versions": numbers,
        "roles": numbers,
        "nonce": octets,
        "certificate_sha256": octets,
        "extensions": _extensions,
        "settings": lambda text: tuple((setting, 1) for setting in numbers(text)),
    }
    given = words.options(parsers)
    words.end(", ".join(parsers))

    def change(frame: wire.Frame) -> wire.Frame:
        assert isinstance(frame, wire.HelloFrame)
        hello = replace(Hello.decode(frame.body), **given)  # type: ignore[arg-type]  # parsed by name
        return wire.HelloFrame(body=hello.encode())

    return change


def _open_change(world: World, words: Words, sender: str) -> FrameChange:
    """Fields of the frame, or of the OPEN in it, which ``sender`` signs anew then."""
    frame_given = words.options({"handle": number, "stage": number})
    body_parsers: dict[str, Parser] = {
        "lineage": number,
        "codecs": numbers,
        "profile": number,
        "hash_suite": number,
        "expiry_s": number,
        "late_action": number,
        "extensions": _extensions,
    }
    body_given = words.options(body_parsers)
    words.end(", ".join(("handle", "stage", *body_parsers)))

    def change(frame: wire.Frame) -> wire.Frame:
        assert isinstance(frame, wire.OpenFrame)
        message = frame.message
        if body_given:
            opened = Open.decode(SignedMessage.decode("open", message).body)
            body = replace(opened, **body_given).encode()  # type: ignore[arg-type]  # parsed by name
            message = SignedMessage.sign(world.node(sender).signer, "open", body).encode()
        return replace(frame, message=message, **frame_given)  # type: ignore[arg-type]  # parsed by name

    return change


def _extensions(text: str) -> tuple[Extension, ...]:
    return tuple(Extension(type=kind, value=b"") for kind in numbers(text))
