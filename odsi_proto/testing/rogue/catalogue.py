"""Every deviation by name, and the table of them for people."""

from odsi_proto.testing.rogue import (
    answering,
    committing,
    encoding,
    ending,
    handshake,
    opening,
    step_bytes,
    stepping,
)
from odsi_proto.testing.rogue.values import Closes, Deviation, Expectation, Fails, Ignores, Refuses
from odsi_proto.wire.codepoints import ErrorCode

_ALL = (
    *handshake.DEVIATIONS,
    *encoding.DEVIATIONS,
    *opening.DEVIATIONS,
    *ending.DEVIATIONS,
    *stepping.DEVIATIONS,
    *step_bytes.DEVIATIONS,
    *committing.DEVIATIONS,
    *answering.DEVIATIONS,
)

DEVIATIONS: dict[str, Deviation] = {deviation.name: deviation for deviation in _ALL}
"""In the order in which a conversation meets them."""

assert len(DEVIATIONS) == len(_ALL), "two deviations have one name"


def describe(expects: Expectation) -> str:
    """What a conforming peer owes, in words."""
    match expects:
        case Closes():
            return f"closes with {expects.code.name}"
        case Refuses():
            return f"refuses with {expects.code.name}" + (", serves the request" * expects.request_lives)
        case Ignores():
            return "ignores it" + (", serves the request" * expects.own_request)
        case Fails():
            who = {"ROGUE": "it", "NEXT": "the stage after it", "BEFORE": "the stage before it"}
            blamed = who.get(expects.where.name, "nobody")
            return f"the request fails with {ErrorCode.name_of(expects.code)} and names {blamed}"


def table() -> str:
    """All deviations as a table in Markdown."""
    head = "| deviation | by | does | a conforming peer | spec |\n| --- | --- | --- | --- | --- |\n"
    rows = (
        f"| `{one.name}` | {', '.join(part.value for part in one.parts)} | {one.does} | "
        f"{describe(one.expects)} | {', '.join(one.specs)} |\n"
        for one in DEVIATIONS.values()
    )
    return head + "".join(rows)
