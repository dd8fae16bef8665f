"""All rules of version 1, in four tables.

**Session**: one per connection and the same on both sides. Each side sends HELLO at once and AUTH
as soon as it holds the other's HELLO; nothing else is accepted before the other's AUTH is verified.
A side that leaves sends GOAWAY: what is open is finished, nothing new is begun.

**Request**: one per request at each stage. An OPEN that passes every check reserves state, then is
answered with the stage's own COMMIT and forwarded; when the way on is ready (the successor's COMMIT
is here, or at the last stage the client has attached) steps may flow. Steps before that are a
breach: whoever sends them has not waited for the COMMITs it must hold.

**Step**: one per (lineage, position) at each stage. An arrival is first classified against the
request's state into NEXT, EARLY, ...; the table then says what becomes of it. A step is handed to
the executor in order of position; its output is kept until the next step acknowledges it, so that a
retry is answered without compute.

**Claim**: one per request at its client, from OPEN to the last token.
"""

from enum import Enum
from typing import Any

from odsi_proto.statemachine.table import Table, ignored, illegal, impossible, legal, refused
from odsi_proto.wire.codepoints import ErrorCode as Code


class SessionState(Enum):
    """How far the two ends of a connection know each other."""

    AWAIT_HELLO = "await hello"
    AWAIT_AUTH = "await auth"
    ESTABLISHED = "established"
    DRAINING = "draining"
    CLOSED = "closed"


class SessionInput(Enum):
    """What can happen to a connection."""

    HELLO = "HELLO"
    AUTH = "AUTH"
    TRAFFIC = "TRAFFIC"
    """Any frame of a request, or a step stream."""
    GOAWAY = "GOAWAY"
    UNKNOWN_IGNORABLE = "unknown odd frame"
    UNKNOWN_CRITICAL = "unknown even frame"
    DRAIN = "local drain"
    OVERDUE = "handshake overdue"
    LOST = "connection lost"
    BREACH = "breach"
    """Bytes or contents that no conforming peer sends."""


_S, _SI = SessionState, SessionInput

SESSION = Table(
    "session",
    states=SessionState,
    inputs=SessionInput,
    initial=_S.AWAIT_HELLO,
    terminal=_S.CLOSED,
    rows=(
        legal((_S.AWAIT_HELLO,), (_SI.HELLO,), _S.AWAIT_AUTH, "SESS-001"),
        legal((_S.AWAIT_AUTH,), (_SI.AUTH,), _S.ESTABLISHED, "SESS-002"),
        legal((_S.ESTABLISHED, _S.DRAINING), (_SI.TRAFFIC,), None, "SESS-003"),
        legal((_S.ESTABLISHED, _S.DRAINING), (_SI.GOAWAY,), _S.DRAINING, "SESS-004"),
        legal((_S.ESTABLISHED,), (_SI.DRAIN,), _S.DRAINING, "SESS-004"),
        legal((_S.AWAIT_HELLO, _S.AWAIT_AUTH), (_SI.DRAIN,), _S.CLOSED, "SESS-004"),
        ignored((_S.DRAINING,), (_SI.DRAIN,), "already draining", "SESS-004"),
        illegal(
            (_S.AWAIT_HELLO,),
            (_SI.AUTH, _SI.TRAFFIC, _SI.GOAWAY, _SI.UNKNOWN_IGNORABLE),
            _S.CLOSED,
            Code.ORDER_VIOLATION,
            "SESS-005",
        ),
        illegal(
            (_S.AWAIT_AUTH,),
            (_SI.HELLO, _SI.TRAFFIC, _SI.GOAWAY),
            _S.CLOSED,
            Code.ORDER_VIOLATION,
            "SESS-005",
        ),
        illegal(
            (_S.ESTABLISHED, _S.DRAINING), (_SI.HELLO, _SI.AUTH), _S.CLOSED, Code.ORDER_VIOLATION, "SESS-005"
        ),
        ignored(
            (_S.AWAIT_AUTH, _S.ESTABLISHED, _S.DRAINING),
            (_SI.UNKNOWN_IGNORABLE,),
            "odd types may be unknown",
            "SESS-006",
        ),
        illegal(
            (_S.AWAIT_HELLO, _S.AWAIT_AUTH, _S.ESTABLISHED, _S.DRAINING),
            (_SI.UNKNOWN_CRITICAL,),
            _S.CLOSED,
            Code.UNSUPPORTED,
            "SESS-006",
        ),
        illegal(
            (_S.AWAIT_HELLO, _S.AWAIT_AUTH), (_SI.OVERDUE,), _S.CLOSED, Code.HANDSHAKE_TIMEOUT, "SESS-007"
        ),
        impossible((_S.ESTABLISHED, _S.DRAINING), (_SI.OVERDUE,), "AUTH disarms the timer", "SESS-007"),
        legal(
            (_S.AWAIT_HELLO, _S.AWAIT_AUTH, _S.ESTABLISHED, _S.DRAINING), (_SI.LOST,), _S.CLOSED, "SESS-008"
        ),
        illegal(
            (_S.AWAIT_HELLO, _S.AWAIT_AUTH, _S.ESTABLISHED, _S.DRAINING),
            (_SI.BREACH,),
            _S.CLOSED,
            Code.MALFORMED,
            "SESS-009",
        ),
        ignored((_S.CLOSED,), tuple(_SI), "what was in flight when the connection closed", "SESS-008"),
    ),
)


class RequestState(Enum):
    """How far a stage has taken a request."""

    RESERVING = "reserving"
    COMMITTED = "committed"
    READY = "ready"
    ENDED = "ended"


class RequestInput(Enum):
    """What can happen to a request at a stage."""

    RESERVED = "state reserved"
    RESERVE_FAILED = "state does not fit"
    ONWARD_READY = "onward ready"
    """The successor's COMMIT is here, or the client has attached to the last stage."""
    STEP = "step"
    OUTPUT = "output"
    """The executor answered, with rows or with a failure."""
    STEP_REFUSED = "step refused"
    """A step was refused, or failed, with a code that the request does not outlive."""
    CANCEL = "CANCEL"
    ONWARD_REFUSED = "onward REFUSE"
    UPSTREAM_LOST = "upstream lost"
    """The predecessor's connection is gone, or it sent ABANDON."""
    ONWARD_LOST = "onward lost"
    OVERDUE = "path overdue"
    """The path was not ready in time."""


_R, _RI = RequestState, RequestInput

REQUEST = Table(
    "request",
    states=RequestState,
    inputs=RequestInput,
    initial=_R.RESERVING,
    terminal=_R.ENDED,
    rows=(
        legal((_R.RESERVING,), (_RI.RESERVED,), _R.COMMITTED, "REQ-001"),
        refused((_R.RESERVING,), (_RI.RESERVE_FAILED,), _R.ENDED, Code.OVERLOADED, "REQ-002"),
        legal((_R.COMMITTED,), (_RI.ONWARD_READY,), _R.READY, "REQ-003"),
        legal((_R.READY,), (_RI.STEP, _RI.OUTPUT), None, "REQ-004"),
        legal((_R.READY,), (_RI.STEP_REFUSED,), _R.ENDED, "REQ-004"),
        refused((_R.RESERVING, _R.COMMITTED), (_RI.STEP,), _R.ENDED, Code.ORDER_VIOLATION, "REQ-005"),
        legal((_R.RESERVING, _R.COMMITTED, _R.READY), (_RI.CANCEL,), _R.ENDED, "REQ-006"),
        legal((_R.COMMITTED, _R.READY), (_RI.ONWARD_REFUSED,), _R.ENDED, "REQ-007"),
        legal((_R.RESERVING, _R.COMMITTED, _R.READY), (_RI.UPSTREAM_LOST,), _R.ENDED, "REQ-008"),
        refused((_R.COMMITTED, _R.READY), (_RI.ONWARD_LOST,), _R.ENDED, Code.PEER_LOST, "REQ-009"),
        refused((_R.RESERVING, _R.COMMITTED), (_RI.OVERDUE,), _R.ENDED, Code.EXPIRED, "REQ-010"),
        ignored((_R.READY,), (_RI.ONWARD_READY,), "a repeated COMMIT or ATTACH changes nothing", "REQ-003"),
        impossible((_R.READY,), (_RI.OVERDUE,), "a ready path disarms the timer", "REQ-010"),
        impossible((_R.COMMITTED, _R.READY), (_RI.RESERVED, _RI.RESERVE_FAILED), "reserved once", "REQ-001"),
        impossible(
            (_R.RESERVING, _R.COMMITTED), (_RI.OUTPUT, _RI.STEP_REFUSED), "no step was taken yet", "REQ-004"
        ),
        impossible(
            (_R.RESERVING,),
            (_RI.ONWARD_READY, _RI.ONWARD_REFUSED, _RI.ONWARD_LOST),
            "the OPEN goes on, and ATTACH is looked at, once state is reserved",
            "REQ-003",
        ),
        ignored((_R.ENDED,), tuple(_RI), "what was under way when the request ended", "REQ-011"),
    ),
)


class StepState(Enum):
    """What has become of one step at a stage."""

    NEW = "new"
    PARKED = "parked"
    RUNNING = "running"
    SENT = "sent"
    DONE = "done"


class StepInput(Enum):
    """An arrival as classified against the request's state, or what happened since."""

    NEXT = "next"
    """Its position is the state's, and so is its tag."""
    EARLY = "early"
    """Its position is beyond the state."""
    EARLY_FULL = "early, no room"
    DUPLICATE = "duplicate"
    """The same step with the same input again."""
    EQUIVOCAL = "equivocal"
    """The same step with another input."""
    MISMATCH = "mismatch"
    """Its position is the state's, its tag is not."""
    OVERLAP = "overlap"
    """It starts before the state's end, where no step that was run started."""
    STALE = "stale"
    """An older lineage."""
    LONG_AGO = "long ago"
    """It ends before the outputs that are retained: it was acknowledged, or the window moved on."""
    QUEUE_FULL = "next, no room"
    """On arrival, or when a parked step's turn comes."""
    BEYOND = "beyond"
    """It ends past the positions reserved."""
    EXPIRED = "expired"
    """Its budget is used up before it began and the request says to drop it: on arrival, when its turn
    comes, or when the executor would have started it."""
    REACHED = "reached"
    """The state has come to the step's position."""
    OVERDUE = "overdue"
    """Parked for too long."""
    OUTPUT = "output"
    FAILED = "failed"
    ACKNOWLEDGED = "acknowledged"
    """A later step arrived, or the retention window moved on."""
    ENDED = "request ended"


_P, _PI = StepState, StepInput
_HELD = (_P.PARKED, _P.RUNNING, _P.SENT)

STEP = Table(
    "step",
    states=StepState,
    inputs=StepInput,
    initial=_P.NEW,
    terminal=_P.DONE,
    rows=(
        legal((_P.NEW,), (_PI.NEXT,), _P.RUNNING, "STEP-001"),
        legal((_P.NEW,), (_PI.EARLY,), _P.PARKED, "STEP-002"),
        refused((_P.NEW,), (_PI.EARLY_FULL,), _P.DONE, Code.OVERLOADED, "STEP-003"),
        refused((_P.NEW, _P.PARKED), (_PI.QUEUE_FULL,), _P.DONE, Code.OVERLOADED, "STEP-019"),
        ignored((_P.NEW,), (_PI.LONG_AGO,), "its output was acknowledged: nothing is owed", "STEP-014"),
        refused((_P.NEW, _P.PARKED), (_PI.MISMATCH,), _P.DONE, Code.STATE_MISMATCH, "STEP-004"),
        refused((_P.NEW, _P.PARKED), (_PI.OVERLAP,), _P.DONE, Code.STATE_MISMATCH, "STEP-005"),
        refused((_P.NEW,), (_PI.STALE,), _P.DONE, Code.STALE, "STEP-006"),
        refused((_P.NEW,), (_PI.BEYOND,), _P.DONE, Code.LIMIT_EXCEEDED, "STEP-007"),
        refused((_P.NEW, _P.PARKED, _P.RUNNING), (_PI.EXPIRED,), _P.DONE, Code.EXPIRED, "STEP-008"),
        legal((_P.PARKED,), (_PI.REACHED,), _P.RUNNING, "STEP-002"),
        refused((_P.PARKED,), (_PI.OVERDUE,), _P.DONE, Code.MISSING_STEP, "STEP-009"),
        legal((_P.RUNNING,), (_PI.OUTPUT,), _P.SENT, "STEP-010"),
        refused((_P.RUNNING,), (_PI.FAILED,), _P.DONE, Code.COMPUTE_FAILED, "STEP-011"),
        ignored((_P.PARKED,), (_PI.DUPLICATE,), "parked already", "STEP-012"),
        ignored((_P.RUNNING,), (_PI.DUPLICATE,), "its output goes out when it is computed", "STEP-012"),
        legal((_P.SENT,), (_PI.DUPLICATE,), None, "STEP-012"),
        refused(_HELD, (_PI.EQUIVOCAL,), _P.DONE, Code.STATE_MISMATCH, "STEP-013"),
        legal((_P.SENT,), (_PI.ACKNOWLEDGED,), _P.DONE, "STEP-014"),
        legal(_HELD, (_PI.ENDED,), _P.DONE, "STEP-015"),
        impossible(
            (_P.NEW,),
            (
                _PI.DUPLICATE,
                _PI.EQUIVOCAL,
                _PI.REACHED,
                _PI.OVERDUE,
                _PI.OUTPUT,
                _PI.FAILED,
                _PI.ACKNOWLEDGED,
                _PI.ENDED,
            ),
            "a step that nobody has is classified as an arrival",
            "STEP-001",
        ),
        impossible(
            _HELD,
            (
                _PI.NEXT,
                _PI.EARLY,
                _PI.EARLY_FULL,
                _PI.LONG_AGO,
                _PI.STALE,
                _PI.BEYOND,
            ),
            "a step that is held is classified as a duplicate or as equivocal",
            "STEP-012",
        ),
        impossible(
            (_P.RUNNING, _P.SENT),
            (_PI.MISMATCH, _PI.OVERLAP, _PI.QUEUE_FULL),
            "decided before compute",
            "STEP-004",
        ),
        impossible((_P.SENT,), (_PI.EXPIRED,), "what was computed is sent", "STEP-008"),
        impossible((_P.PARKED,), (_PI.OUTPUT, _PI.FAILED, _PI.ACKNOWLEDGED), "not run yet", "STEP-010"),
        impossible(
            (_P.RUNNING,), (_PI.REACHED, _PI.OVERDUE, _PI.ACKNOWLEDGED), "not parked, not sent", "STEP-010"
        ),
        impossible(
            (_P.SENT,), (_PI.REACHED, _PI.OVERDUE, _PI.OUTPUT, _PI.FAILED), "computed once", "STEP-010"
        ),
        ignored((_P.DONE,), tuple(_PI), "acknowledged or refused: nothing is owed", "STEP-014"),
    ),
)


class ClaimState(Enum):
    """How far a client's request has come."""

    OPENING = "opening"
    READY = "ready"
    ENDED = "ended"


class ClaimInput(Enum):
    """What can happen to a client's request."""

    COMMIT = "COMMIT"
    ATTACHED = "ATTACHED"
    PATH_READY = "path ready"
    """The last of the COMMITs and ATTACHED."""
    ROWS = "rows"
    """The answer to a step."""
    ROWS_OF_NO_STEP = "rows of no step"
    """They answer nothing that was sent: the last stage, or any stage before it, made up a step."""
    STATUS = "STATUS"
    REFUSE = "REFUSE"
    CANCEL = "local cancel"
    PEER_LOST = "peer lost"
    OVERDUE = "overdue"


_C, _CI = ClaimState, ClaimInput

CLAIM = Table(
    "claim",
    states=ClaimState,
    inputs=ClaimInput,
    initial=_C.OPENING,
    terminal=_C.ENDED,
    rows=(
        legal((_C.OPENING,), (_CI.COMMIT, _CI.ATTACHED), None, "REQ-020"),
        legal((_C.OPENING,), (_CI.PATH_READY,), _C.READY, "REQ-021"),
        legal((_C.READY,), (_CI.ROWS,), None, "REQ-022"),
        refused((_C.OPENING,), (_CI.ROWS_OF_NO_STEP,), _C.ENDED, Code.ORDER_VIOLATION, "REQ-022"),
        refused((_C.READY,), (_CI.ROWS_OF_NO_STEP,), _C.ENDED, Code.STATE_MISMATCH, "STEP-017"),
        impossible((_C.OPENING,), (_CI.ROWS,), "no step was sent that they could answer", "REQ-022"),
        legal((_C.OPENING, _C.READY), (_CI.STATUS,), None, "REQ-023"),
        legal((_C.OPENING, _C.READY), (_CI.REFUSE,), _C.ENDED, "REQ-024"),
        legal((_C.OPENING, _C.READY), (_CI.CANCEL,), _C.ENDED, "REQ-025"),
        legal((_C.OPENING, _C.READY), (_CI.PEER_LOST,), _C.ENDED, "REQ-026"),
        legal((_C.OPENING, _C.READY), (_CI.OVERDUE,), _C.ENDED, "REQ-027"),
        ignored((_C.READY,), (_CI.COMMIT, _CI.ATTACHED), "repeated: nothing is left to wait for", "REQ-021"),
        impossible((_C.READY,), (_CI.PATH_READY,), "the path becomes ready once", "REQ-021"),
        ignored((_C.ENDED,), tuple(_CI), "what was under way when the request ended", "REQ-028"),
    ),
)

TABLES: tuple[Table[Any, Any], ...] = (SESSION, REQUEST, STEP, CLAIM)
"""Every machine of version 1."""
