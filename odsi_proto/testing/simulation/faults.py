"""What can go wrong on purpose: kinds of faults, one fault, and how a plan is drawn from a seed."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from types import MappingProxyType
from typing import TYPE_CHECKING, TypeAlias

from odsi_proto.testing.rogue import DEVIATIONS, Part, Seat
from odsi_proto.testing.simulation.seeds import stream

if TYPE_CHECKING:  # options name the kinds
    from odsi_proto.testing.simulation.options import SimOptions


class FaultKind(Enum):
    """What happens, and what the protocol must do."""

    CRASH = "crash"
    """A process ends and stays down; peers hear nothing. Its requests MUST fail with PEER_LOST."""
    CRASH_AND_RESTART = "crash_and_restart"
    """As above, but it comes back empty after a while. Nothing of before MUST be taken for new."""
    PAUSE = "pause"
    """A process stands still; then its timers are late and all its bytes come at once."""
    CLOCK_RATE = "clock_rate"
    """A clock runs up to 5 % fast or slow. Budgets MUST hold within that margin."""
    CLOCK_JUMP = "clock_jump"
    """A monotonic clock skips forward, as after a suspend. Timers fire early; nobody MUST breach."""
    STRAGGLER = "straggler"
    """A stage computes many times slower. Budgets run out: EXPIRED, never a late token under FAIL."""
    COMPUTE_FAILURE = "compute_failure"
    """Steps fail in the executor. The request MUST end with COMPUTE_FAILED."""
    EXECUTOR_SILENT = "executor_silent"
    """The executor takes steps and answers none until it is healed. The client's timer MUST end it."""
    RESERVE_REFUSED = "reserve_refused"
    """State does not fit. The request MUST end with OVERLOADED."""
    RESERVE_SLOW = "reserve_slow"
    """State takes long to set aside; beyond ``open_us_max`` the path MUST be given up."""
    SLOW_CONSUMER = "slow_consumer"
    """A process reads late; its peers' bytes wait for credit. Nothing MUST be lost or doubled."""
    CANCEL_AT = "cancel_at"
    """The client cancels. Everything of the request MUST be given back."""
    CONNECTION_LOSS_NOTICED = "connection_loss_noticed"
    """A connection ends and both ends are told. Its requests MUST end with PEER_LOST."""
    CONNECTION_LOSS_SILENT = "connection_loss_silent"
    """A connection ends and nobody is told; each end notices by silence."""
    PARTITION_ONE_WAY = "partition_one_way"
    """Bytes in one direction wait until it is healed; or the receiver loses the connection first."""
    PARTITION_TWO_WAY = "partition_two_way"
    """As above, both directions."""
    STREAM_RESET = "stream_reset"
    """A step's stream is reset at any byte. Its request MUST end by a timer, others MUST NOT notice."""
    DRAIN = "drain"
    """A node leaves: GOAWAY. Open requests go on, new ones MUST be refused with GOING_AWAY."""
    DUPLICATE_STEP = "duplicate_step"
    """A step is sent again with a higher attempt. It MUST NOT run twice."""
    ROGUE = "rogue"
    """One participant deviates from the protocol. Requests that do not go through it MUST complete."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One thing that goes wrong. Fields that a kind does not use are 0 or empty."""

    at_us: int
    """Virtual microseconds since the run began."""
    kind: FaultKind
    target: str
    """The node that it happens to; of a partition or a loss, the end that sends."""
    peer: str = ""
    """The other end, for faults of a connection or a direction."""
    for_us: int = 0
    """How long it lasts; what is under way when the run heals ends there. Of DUPLICATE_STEP: how much
    later the step is sent again."""
    amount: int = 0
    """CLOCK_RATE: ppm. CLOCK_JUMP: us. STRAGGLER: times slower. COMPUTE_FAILURE, DUPLICATE_STEP: how many
    steps. RESERVE_SLOW, SLOW_CONSUMER: us later. STREAM_RESET: bytes sent before the reset."""
    name: str = ""
    """ROGUE: the deviation."""

    @property
    def until_us(self) -> int:
        """When it ends, unless the run heals before."""
        return self.at_us + self.for_us

    def __str__(self) -> str:
        towards = f" > {self.peer}" if self.peer else ""
        lasts = f" for {self.for_us / 1000:g} ms" if self.for_us else ""
        amount = f" ({self.amount})" if self.amount else ""
        name = f" {self.name}" if self.name else ""
        return f"{self.kind.value}{name} {self.target}{towards}{lasts}{amount}"


FaultPlan: TypeAlias = tuple[Fault, ...]
"""In order of time."""

_K = FaultKind

OF_LINKS = frozenset(
    {
        _K.CONNECTION_LOSS_NOTICED,
        _K.CONNECTION_LOSS_SILENT,
        _K.PARTITION_ONE_WAY,
        _K.PARTITION_TWO_WAY,
        _K.STREAM_RESET,
    }
)
"""Kinds that need a ``peer``."""

OF_STAGES = frozenset(
    {
        _K.STRAGGLER,
        _K.COMPUTE_FAILURE,
        _K.EXECUTOR_SILENT,
        _K.RESERVE_REFUSED,
        _K.RESERVE_SLOW,
        _K.DRAIN,
    }
)
"""Kinds that only a stage can have."""

_EARLY = frozenset({_K.RESERVE_REFUSED, _K.RESERVE_SLOW})

OF_CLIENTS = frozenset({_K.CANCEL_AT})

ROGUE_NODE = "rogue"

_LASTING_US: Mapping[FaultKind, tuple[int, int]] = MappingProxyType(
    {
        _K.CRASH_AND_RESTART: (1_000, 6_000_000),
        _K.PAUSE: (1_000, 5_000_000),
        _K.CLOCK_RATE: (1_000_000, 20_000_000),
        _K.STRAGGLER: (10_000, 5_000_000),
        _K.EXECUTOR_SILENT: (1_000, 1_000_000),
        _K.RESERVE_REFUSED: (10_000, 2_000_000),
        _K.RESERVE_SLOW: (10_000, 2_000_000),
        _K.SLOW_CONSUMER: (10_000, 5_000_000),
        _K.PARTITION_ONE_WAY: (1_000, 8_000_000),
        _K.PARTITION_TWO_WAY: (1_000, 8_000_000),
        _K.DUPLICATE_STEP: (1, 200_000),
    }
)
"""Least and most of ``for_us``: from shorter than a step to longer than every time-out."""

_AMOUNTS: Mapping[FaultKind, tuple[int, int]] = MappingProxyType(
    {
        _K.CLOCK_JUMP: (1_000, 10_000_000),
        _K.STRAGGLER: (2, 200),
        _K.COMPUTE_FAILURE: (1, 3),
        _K.RESERVE_SLOW: (1_000, 6_000_000),
        _K.SLOW_CONSUMER: (100, 100_000),
        _K.STREAM_RESET: (0, 200),
        _K.DUPLICATE_STEP: (1, 4),
    }
)

CLOCK_RATE_PPM_MAX = 50_000
"""5 %: what a fault does to a clock."""


def draw_plan(seed: int, options: "SimOptions") -> FaultPlan:
    """The faults of a seed: kinds by the options' weights, instants within their safety phase."""
    weights = [(kind, weight) for kind, weight in options.fault_weights if weight and kind is not _K.ROGUE]
    random = stream(seed, "faults")
    drawn: list[Fault] = []
    for _ in range(options.faults if weights else 0):
        kind = random.choices([kind for kind, _ in weights], [weight for _, weight in weights])[0]
        low, high = _LASTING_US.get(kind, (0, 0))
        # Even odds for every order of magnitude: short faults hit one step, long ones every time-out.
        for_us = round(low * (high / low) ** random.random()) if low else 0
        low, high = _AMOUNTS.get(kind, (0, 0))
        amount = round(low * (high / low) ** random.random()) if low else random.randint(0, high)
        if kind is _K.CLOCK_RATE:
            amount = random.choice((-CLOCK_RATE_PPM_MAX, CLOCK_RATE_PPM_MAX))
        target, peer = _place(kind, options, random.random(), random.random())
        # State is reserved once, in the first few round trips.
        within_us = min(options.safety_us, 6 * options.round_us) if kind in _EARLY else options.safety_us
        at_us = random.randrange(within_us)
        drawn.append(Fault(at_us=at_us, kind=kind, target=target, peer=peer, for_us=for_us, amount=amount))
    if options.rogue:
        deviation = DEVIATIONS[options.rogue]
        nodes = [ROGUE_NODE] * (Part.CLIENT in deviation.parts)
        if Part.STAGE in deviation.parts:
            names = options.stage_names
            seats = {Seat.FIRST: names[0], Seat.MIDDLE: names[len(names) // 2], Seat.LAST: names[-1]}
            nodes += [seats[seat] for seat in deviation.seats]
        node = random.choice(nodes)
        drawn.append(Fault(at_us=0, kind=_K.ROGUE, target=node, name=options.rogue))
    return tuple(sorted(drawn, key=lambda fault: fault.at_us))


def _place(kind: FaultKind, options: "SimOptions", one: float, other: float) -> tuple[str, str]:
    """Where it happens: a node, or one end of a link and the other."""
    if kind in OF_LINKS:
        links = options.links
        link = links[int(one * len(links))]
        return link if kind is _K.STREAM_RESET or other < 0.5 else (link[1], link[0])
    nodes = list(options.stage_names) if kind not in OF_CLIENTS else []
    if kind not in OF_STAGES:
        nodes += options.client_names
    return nodes[int(one * len(nodes))], ""
