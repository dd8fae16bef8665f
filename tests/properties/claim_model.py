"""What a model of a client keeps of one request, and the sizes and times of its tests."""

from dataclasses import dataclass, field

from properties.scripted import WIDTH

from odsi_proto.limits import Limits
from odsi_proto.units import Handle, Micros, Position, RequestId, Tag
from odsi_proto.wire.identity import SignedMessage
from odsi_proto.wire.step import StepHeader
from odsi_proto.wire.tensor import ActivationCodec, ActivationLayout

LIMITS = Limits(open_us_max=Micros(400_000), abandoned_us_max=Micros(70_003))
FIRST_US, PER_US = 250_000, 120_000
LAYOUT = ActivationLayout(codec=ActivationCodec.F16, width=WIDTH)
POSITIONS_MAX, ROWS_MAX = 12, 2


@dataclass
class Mine:
    """What a client must know of one request."""

    request: RequestId
    message: SignedMessage
    handle: int
    secret: bytes
    path_due: int
    tag: bytes
    state: str = "opening"
    commits: set[int] = field(default_factory=set)
    return_handle: int | None = None
    position: int = 0
    opened_us: int = 0
    started_us: int = 0
    total_us: int | None = None
    granted: tuple[int, int] = (4, 4 << 20)
    """Steps and bytes that may have been sent."""
    sent: tuple[int, int] = (0, 0)
    answered: int = 0
    awaited: dict[int, tuple[StepHeader, int]] = field(default_factory=dict)
    """Steps without an answer, and when each is overdue."""
    reported: dict[int, int] = field(default_factory=dict)
    abandoned: tuple[int, int] | None = None
    """When the wait for REFUSE is over, and the code of ABANDON."""


def nothing() -> StepHeader:
    """The header of a step that nobody sent."""
    zero = Micros(0)
    return StepHeader(
        handle=Handle(0),
        lineage=0,
        attempt=0,
        position=Position(0),
        count=1,
        remaining_us=zero,
        owd_us=zero,
        tag_before=Tag(bytes(8)),
        tag_after=Tag(bytes(8)),
    )
