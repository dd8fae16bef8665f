"""The log of a script: frames, step headers and effects, decoded, one a line, with stable names."""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any, assert_never

from odsi_proto.errors import Malformed
from odsi_proto.statemachine import effects as fx
from odsi_proto.statemachine.table import Verdict
from odsi_proto.testing.script_names import Names
from odsi_proto.units import Handle, Micros, RequestId
from odsi_proto.wire import frames as wire
from odsi_proto.wire.codepoints import DeadlineKind, ErrorCode, LateAction, Role, Setting
from odsi_proto.wire.identity import SignedMessage
from odsi_proto.wire.messages import Cancel, Commit, Hello, Open
from odsi_proto.wire.step import StepHeader

Handles = dict[Handle, RequestId]
"""The requests that one direction of a connection has named."""

_WHO_WIDTH = 20
_TRANSITION_FIELDS = {"machine", "subject", "before", "received", "after"}


class Log:
    """Lines since the last :meth:`take`."""

    def __init__(self, names: Names) -> None:
        self.names = names
        self.is_quiet = False
        """Whether what happens is left out."""
        self._lines: list[str] = []

    def line(self, now: Micros, who: str, text: str, *more: str) -> None:
        """What happened at a participant, or from one to another; ``more`` lines belong to it."""
        if not self.is_quiet:
            milliseconds, rest_us = divmod(now, 1_000)
            fraction = f".{rest_us:03d}".rstrip("0") if rest_us else ""
            at, what = f"{milliseconds}{fraction}", self.names.readable(text)
            self._lines.append(f"{at:>8} ms  {who:<{_WHO_WIDTH}} {what}")
            self._lines.extend(" " * (_WHO_WIDTH + 16) + line for line in more)

    def take(self) -> tuple[str, ...]:
        """The lines, which are gone from here then."""
        lines, self._lines = self._lines, []
        return tuple(lines)


def describe_step(names: Names, header: StepHeader, payload: bytes, handles: Handles) -> str:
    """A step in one line."""
    numbers = {
        "handle": header.handle,
        "lineage": header.lineage or None,
        "attempt": header.attempt or None,
        "position": header.position,
        "count": header.count,
        "remaining_us": header.remaining_us,
        "owd_us": header.owd_us,
        "extension": names.octets(header.extension) if header.extension else None,
    }
    tags = f"{names.tag(header.tag_before)} -> {names.tag(header.tag_after)}"
    return f"STEP {_of(names, header.handle, handles)}{_words(numbers)} {tags} rows={names.octets(payload)}"


def describe_frame(
    names: Names, frame: wire.Frame, own: Handles, peers: Handles
) -> tuple[str, tuple[str, ...]]:
    """A frame in one line, and one more for each record of a STATUS.

    ``own`` are the handles that its sender chose on the connection, ``peers`` the receiver's.
    """
    match frame:
        case wire.StatusFrame():
            credit = f"credit={frame.credit_steps}/{frame.credit_bytes}"
            text = f"STATUS {_of(names, frame.handle, peers)}handle={frame.handle} {credit}"
            return text, tuple(map(_record, frame.records))
        case wire.OpenFrame() | wire.AttachFrame() | wire.AttachedFrame() | wire.AbandonFrame():
            return _down(names, frame, own), ()
        case wire.CommitFrame():
            return _commit(names, frame, peers), ()
        case wire.RefuseFrame():
            code = ErrorCode.name_of(frame.code)
            numbers = {
                "handle": frame.handle,
                "stage": frame.stage,
                "position": frame.position,
                "queue_us": frame.queue_us or None,
            }
            return f'REFUSE {_of(names, frame.handle, peers)}{_words(numbers)} {code} "{frame.reason}"', ()
        case wire.CancelFrame():
            return _cancel(names, frame), ()
        case wire.HelloFrame() | wire.AuthFrame() | wire.GoawayFrame() | wire.UnknownFrame():
            return _of_the_session(names, frame), ()
        case _:
            assert_never(frame)


def describe_effect(names: Names, effect: object, peer: str) -> tuple[str, tuple[str, ...]]:
    """An effect that sends nothing, in one line; ``peer`` is at the other end of its connection.

    Empty for one that is not worth a line. Effects that this module does not know are written field by field.
    """
    match effect:
        case fx.Close():
            text = f'closes {peer}: {ErrorCode.name_of(effect.code)} "{effect.reason}"'
            return text, ()
        case fx.Run():
            numbers = {
                "position": effect.position,
                "count": effect.count,
                "remaining_us": effect.remaining_us,
                **({} if int(effect.slack_us) == effect.remaining_us else {"slack_us": effect.slack_us}),
                **({"droppable": "yes"} if effect.is_droppable else {}),
                "rows": names.octets(bytes(effect.payload)),
                "rows_out_max": effect.rows_out_max,
            }
            return f"run {names.request(effect.request)} {_words(numbers)}", ()
        case fx.Established():
            offers = ", ".join(str(offer.layers) for offer in effect.offers)
            text = f"established with {names.participant(effect.participant)}"
            return text + (f", which offers layers {offers}" if offers else ""), ()
        case fx.StatusArrived():
            return f"status {names.request(effect.request)}", tuple(map(_record, effect.records))
        case fx.RequestFailed():
            stage = "" if effect.stage is None else f" stage={effect.stage}"
            code = ErrorCode.name_of(effect.code)
            more = {
                "position": effect.position,
                "queue_us": effect.queue_us or None,
                "reroutable": "yes" if effect.is_reroutable else None,
            }
            where = f"{stage} {_words(more)}".rstrip()
            return f'failed {names.request(effect.request)}{where} {code} "{effect.reason}"', ()
        case fx.Trace():
            to = f" {peer}" if peer else ""
            return f"trace {effect.event}{to} {_words(_valued(names, effect.fields))}".rstrip(), ()
        case _:
            return _any_effect(names, effect, peer), ()


def _any_effect(names: Names, effect: Any, peer: str) -> str:
    given = _fields_of(effect)
    if given.keys() >= _TRANSITION_FIELDS:
        return _transition(names, given, peer)
    if peer:
        given["connection"] = peer
    kind = type(effect).__name__
    name = "".join(f" {letter.lower()}" if letter.isupper() else letter for letter in kind).strip()
    request = given.pop("request", None)
    of = f" {names.request(request)}" if request is not None else ""
    return f"{name}{of} {_words(_valued(names, given))}".rstrip()


def _transition(names: Names, given: Mapping[str, Any], peer: str) -> str:
    """A step of a table: of a session, which its peer names, of a request, or of a step of one.

    Empty where a legal input leaves the state as it is: the effects beside it say all there is.
    """
    subject = peer or names.value(given["subject"])
    before, received, after = (names.value(given[name]) for name in ("before", "received", "after"))
    verdict = given.get("verdict", Verdict.LEGAL)
    if verdict is Verdict.LEGAL and given["before"] is given["after"]:
        return ""
    said = "" if verdict is Verdict.LEGAL else f" ({verdict.value})"
    return f"  {given['machine']} {subject}: {before} + {received} -> {after}{said}"


def _fields_of(value: Any) -> dict[str, Any]:
    """Of a dataclass or a named tuple."""
    if hasattr(value, "_fields"):
        return dict(zip(value._fields, value, strict=True))
    return {field.name: getattr(value, field.name) for field in fields(value)}


def _valued(names: Names, given: Mapping[str, object]) -> dict[str, object]:
    return {name: names.value(value) for name, value in given.items()}


def _words(given: Mapping[str, object]) -> str:
    return " ".join(f"{name}={value}" for name, value in given.items() if value is not None)


def _of(names: Names, handle: Handle, handles: Handles) -> str:
    """The request that a handle names, and a space; nothing where it names none."""
    return f"{names.request(handles[handle])} " if handle in handles else ""


def _record(record: wire.StatusRecord) -> str:
    shown = {
        name: value
        for name, value in _fields_of(record).items()
        if value or name in {"stage", "position", "count"}
    }
    return _words(shown)


def _hello(names: Names, frame: wire.HelloFrame) -> str:
    try:
        hello = Hello.decode(frame.body)
    except Malformed as error:
        return f"HELLO, malformed: {error}"
    roles = ",".join(Role(role).name if role in set(Role) else str(role) for role in hello.roles)
    unknown = {number for number, _ in hello.settings} - set(map(int, Setting))
    given = {
        "versions": ",".join(map(str, hello.versions)) or "none",
        "roles": roles or "none",
        "offers": ",".join(str(offer.layers) for offer in hello.offers) or None,
        "extensions": ",".join(f"{extension.type:#x}" for extension in hello.extensions) or None,
        "unknown_settings": ",".join(f"{number:#x}" for number in sorted(unknown)) or None,
    }
    return f"HELLO of {names.participant(hello.delegation.participant)} {_words(given)}"


def _down(
    names: Names,
    frame: wire.OpenFrame | wire.AttachFrame | wire.AttachedFrame | wire.AbandonFrame,
    own: Handles,
) -> str:
    """A frame about a request that its sender names."""
    match frame:
        case wire.OpenFrame():
            return _open(names, frame, own)
        case wire.AttachFrame():
            owner = names.tokens.get(frame.return_token)
            token = f"that of {names.request(owner)}" if owner else names.octets(frame.return_token)
            return f"ATTACH {names.request(frame.request_id)}, return token: {token}"
        case wire.AttachedFrame():
            own[frame.handle] = frame.request_id
            return f"ATTACHED {names.request(frame.request_id)} handle={frame.handle}"
        case wire.AbandonFrame():
            code = ErrorCode.name_of(frame.code)
            return f'ABANDON {_of(names, frame.handle, own)}handle={frame.handle} {code} "{frame.reason}"'


def _of_the_session(
    names: Names, frame: wire.HelloFrame | wire.AuthFrame | wire.GoawayFrame | wire.UnknownFrame
) -> str:
    """A frame about no request."""
    match frame:
        case wire.HelloFrame():
            return _hello(names, frame)
        case wire.AuthFrame():
            return "AUTH"
        case wire.GoawayFrame():
            return f'GOAWAY {ErrorCode.name_of(frame.code)} "{frame.reason}"'
        case wire.UnknownFrame():
            kind = f"{frame.type:#x} (grease)" if frame.type % 62 == 27 else f"{frame.type:#x}"
            return f"a frame of type {kind}, body={names.octets(frame.body)}"


def _open(names: Names, frame: wire.OpenFrame, own: Handles) -> str:
    numbers = {"handle": frame.handle, "stage": frame.stage}
    try:
        message = SignedMessage.decode("open", frame.message)
        opened = Open.decode(message.body)
    except Malformed as error:
        return f"OPEN {_words(numbers)}, malformed: {error}"
    own[frame.handle] = opened.request_id
    late = opened.late_action
    given = {
        "positions_max": opened.positions_max,
        "rows_returned_max": opened.rows_returned_max,
        "first_token_us": opened.budget_us(DeadlineKind.FIRST_TOKEN),
        "per_token_us": opened.budget_us(DeadlineKind.PER_TOKEN),
        "total_us": opened.budget_us(DeadlineKind.TOTAL),
        "budgets_us": ",".join(str(stage.budget_us) for stage in opened.stages)
        if any(stage.budget_us for stage in opened.stages)
        else None,
        "late_action": LateAction(late).name if late in set(LateAction) else late,
    }
    text = f"OPEN {names.request(opened.request_id)} {_words(numbers)} by {names.participant(message.signer)}"
    if frame.message in names.seen:
        return text
    names.seen.add(frame.message)
    return f"{text}: {_words(given)}"


def _commit(names: Names, frame: wire.CommitFrame, peers: Handles) -> str:
    numbers = {"handle": frame.handle, "stage": frame.stage}
    of = _of(names, frame.handle, peers)
    try:
        message = SignedMessage.decode("commit", frame.message)
        commit = Commit.decode(message.body)
    except Malformed as error:
        return f"COMMIT {of}{_words(numbers)}, malformed: {error}"
    given = {"position_end": commit.position_end, "retention_window": commit.retention_window}
    return f"COMMIT {of}{_words(numbers)} by {names.participant(message.signer)}: {_words(given)}"


def _cancel(names: Names, frame: wire.CancelFrame) -> str:
    try:
        message = SignedMessage.decode("cancel", frame.message)
        cancel = Cancel.decode(message.body)
    except Malformed as error:
        return f"CANCEL, malformed: {error}"
    request, signer = names.request(cancel.request_id), names.participant(message.signer)
    return f"CANCEL {request} by {signer}: {ErrorCode.name_of(cancel.code)}"
