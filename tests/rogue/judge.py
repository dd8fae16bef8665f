"""Compares what became of a deviation with what it owes; behaviour and closing are judged separately."""

from collections.abc import Iterator

from rogue.scene import Outcome

from odsi_proto.statemachine import effects as fx
from odsi_proto.testing.rogue import Closes, Fails, Ignores, Refuses, Where
from odsi_proto.units import StageIndex
from odsi_proto.wire.codepoints import ErrorCode
from odsi_proto.wire.frames import RefuseFrame


def judge(outcome: Outcome) -> list[str]:
    """Everything that is not as it should be."""
    return [
        *_the_moment(outcome),
        *_the_peer(outcome),
        *_the_cells(outcome),
        *_the_others(outcome),
        *_what_is_left(outcome),
    ]


def _the_moment(outcome: Outcome) -> Iterator[str]:
    if not outcome.rogue.endpoint.acted:
        yield "its moment never came"


def _the_peer(outcome: Outcome) -> Iterator[str]:
    """Whoever met the deviation."""
    expects = outcome.deviation.expects
    match expects:
        case Closes():
            if not outcome.closes:
                yield "nobody closed"
            for node, close in outcome.closes:
                if close.code != expects.code or expects.spec not in close.reason:
                    yield f"{node.name} closed with {ErrorCode.name_of(close.code)}: {close.reason}"
        case Refuses():
            refusals = list(outcome.said(RefuseFrame))
            if not any(refusal.code == expects.code for refusal in refusals):
                yield f"nobody refused with {expects.code.name}, but {refusals}"
            yield from _no_close(outcome)
            yield from _own_request(outcome, lives=expects.request_lives, code=expects.code)
        case Ignores():
            yield from _no_close(outcome)
            yield from (f"refused: {refusal}" for refusal in outcome.said(RefuseFrame))
            if expects.own_request:
                yield from _own_request(outcome, lives=True)
        case Fails():
            yield from _no_close(outcome)
            yield from _named(outcome, expects.code, expects.where)


def _the_cells(outcome: Outcome) -> Iterator[str]:
    """The cells that the deviation aims at, each passed by somebody honest."""
    seen = {
        f"{effect.machine} {effect.before.name} {effect.received.name}"
        for node in outcome.honest
        for effect in node.seen(fx.Transition)
    }
    yield from (f"no honest node came to {aim}" for aim in sorted(outcome.deviation.aims - seen))


def _no_close(outcome: Outcome) -> Iterator[str]:
    for node, close in outcome.closes:
        yield f"{node.name} closed with {ErrorCode.name_of(close.code)}: {close.reason}"


def _own_request(outcome: Outcome, *, lives: bool, code: int = 0) -> Iterator[str]:
    """The request that the deviation belongs to: the first, or the second where it needs a first."""
    if lives:
        yield from (f"its request failed: {job.failed}" for job in outcome.own if not job.is_done)
    elif outcome.seat is not None:
        yield from _named(outcome, code, Where.NEXT)


def _named(outcome: Outcome, code: int, where: Where) -> Iterator[str]:
    """Whom the client of a failed request names, and why."""
    failures = [job.failed for job in outcome.own if job.failed is not None]
    stage = None
    if where is not Where.NOBODY:
        assert outcome.seat is not None
        stage = StageIndex(outcome.seat + where.value)
    if not any((failure.code, failure.stage) == (code, stage) for failure in failures):
        yield f"no request failed with {ErrorCode.name_of(code)} naming {stage}, but {failures}"


def _the_others(outcome: Outcome) -> Iterator[str]:
    """Nobody else is harmed, and no honest node takes it out on another."""
    yield from outcome.room.violations
    innocent = outcome.innocent
    if not innocent.is_done:
        yield f"the innocent request did not end: {innocent.rows} rows, {innocent.failed}"
    for job in outcome.own:
        if not (job.is_done or job.failed or job.is_refused_locally or job.client.is_rogue):
            yield "a request of the honest client neither ended nor failed"
    for node, close in outcome.closes:
        if node.peer_of(close.connection) is not outcome.rogue:
            yield f"{node.name} closed on {node.peer_of(close.connection).name}: {close.reason}"


def _what_is_left(outcome: Outcome) -> Iterator[str]:
    """Once the rogue is gone, honest nodes hold nothing more of its requests."""
    outcome.room.cut(outcome.rogue)
    outcome.room.run(1_000_000)
    for node in outcome.honest:
        left = getattr(node.endpoint, "requests_open", 0)
        if left:
            yield f"{node.name} holds {left} requests"
        released = {effect.request for effect in node.seen(fx.Release)}
        kept = [effect.request for effect in node.seen(fx.Reserve) if effect.request not in released]
        if kept:
            yield f"{node.name} never released the state of {kept}"
