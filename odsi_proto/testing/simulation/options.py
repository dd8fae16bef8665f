"""Everything about a run that is not a fault: the path, the load, the network, the limits.

Swarm style: a seed does not draw a little of everything but switches whole features on and off, so
that some runs have nothing but, say, partitions and tiny windows, and meet what the average hides.
"""

import random as _random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from types import MappingProxyType

from odsi_proto.limits import Limits
from odsi_proto.testing.rogue import DEVIATIONS
from odsi_proto.testing.simulation.faults import FaultKind
from odsi_proto.testing.simulation.seeds import stream
from odsi_proto.wire.codepoints import LateAction
from odsi_proto.wire.tensor import ActivationCodec, ActivationLayout

CHUNKINGS = ("whole", "cut", "dribble")
"""How bytes on a stream are cut: not at all, into a few pieces, into many small ones."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SimOptions:
    """What the run of one seed is like."""

    stages: int = 3
    clients: int = 1
    requests: int = 1
    """For each client."""
    tokens: int = 20
    """That each request wants."""
    prompt_positions: int = 8
    chunk_positions: int = 4
    """Of the prompt in one step."""
    delay_us: int = 2_000
    """One way, of every link."""
    jitter_us: int = 0
    """At most so much more, drawn for each piece of a stream."""
    chunking: str = "whole"
    window_bytes: int = 1 << 20
    """What may be under way unread on one connection."""
    stream_window_bytes: int = 1 << 20
    """What may be under way unread on one stream."""
    orders_steps: bool = False
    """Whether steps that wait for a stream go by what is left of their budget, and not in turn."""
    late_bytes: bool = False
    """Whether bytes that were under way still reach an endpoint after it closed a connection."""
    compute_us: int = 1_000
    """Of one step at a stage."""
    row_width: int = 4
    gap_us: int = 0
    """From one request of a client to the next; 0: all at once."""
    think_us: int = 0
    """How long a client sometimes waits before its next step."""
    first_token_us: int = 10_000_000
    per_token_us: int = 5_000_000
    total_us: int = 0
    """Budget of a whole request; 0: none."""
    stage_budget_us: int = 0
    """What the plan gives each stage for a decode step; 0: no plan."""
    queue_steps: int = 256
    """Steps that an executor holds at once, of all requests."""
    late_action: int = LateAction.CONTINUE
    valid_s: int = 600
    clock_ppm: int = 500
    """Clocks differ from virtual time by at most so many millionths."""
    wall_s: int = 0
    """Wall clocks are off by at most so much."""
    lateness_us: int = 0
    """Timers fire at most so much late."""
    safety_us: int = 1_000_000
    """How long faults may happen before the run heals."""
    faults: int = 0
    fault_weights: tuple[tuple[FaultKind, int], ...] = ()
    rogue: str = ""
    """The deviation of a rogue participant; empty for none."""
    limits_set: tuple[tuple[str, int], ...] = ()
    """Fields of ``Limits`` that are not at their default."""

    @classmethod
    def draw(cls, seed: int) -> "SimOptions":
        """What ``seed`` is like."""
        random = stream(seed, "options")
        drawn = cls(
            stages=random.choice((1, 2, 3, 3, 3, 3, 4, 5)),
            clients=random.choice((1, 1, 1, 2)),
            requests=random.choice((1, 1, 1, 2, 3)),
            tokens=random.choice((1, 5, 20, 20, 20)),
            prompt_positions=random.choice((1, 3, 8, 16)),
            chunk_positions=random.choice((1, 2, 4, 16)),
            delay_us=random.choice((0, 100, 2_000, 20_000)),
            jitter_us=random.choice((0, 0, 500, 20_000, 60_000)),
            chunking=random.choice(("whole", "whole", "cut", "cut", "dribble")),
            window_bytes=random.choice((1 << 20, 1 << 20, 4_096, 512)),
            stream_window_bytes=random.choice((1 << 20, 1 << 20, 1_024, 64)),
            orders_steps=random.random() < 0.5,
            late_bytes=random.random() < 0.5,
            compute_us=random.choice((0, 100, 1_000, 10_000)),
            row_width=random.choice((1, 4, 32)),
            gap_us=random.choice((0, 0, 50_000, 500_000)),
            think_us=random.choice((0, 0, 0, 100_000)),
            late_action=random.choice((LateAction.CONTINUE, LateAction.FAIL)),
            clock_ppm=random.choice((0, 500)),
            wall_s=random.choice((0, 0, 300)),
            lateness_us=random.choice((0, 0, 100, 5_000)),
        )
        drawn = replace(drawn, limits_set=_draw_limits(stream(seed, "limits")))
        drawn = _draw_rogue(random, _draw_faults(random, _draw_budgets(random, drawn)))
        return _draw_schedule(stream(seed, "schedule"), drawn)

    @property
    def limits(self) -> Limits:
        """The limits of every endpoint."""
        return replace(Limits(), **dict(self.limits_set))  # type: ignore[arg-type]  # Micros are ints

    @property
    def stage_names(self) -> tuple[str, ...]:
        """The nodes of the path, in order."""
        return tuple(f"stage-{index}" for index in range(self.stages))

    @property
    def client_names(self) -> tuple[str, ...]:
        """The nodes that make requests."""
        return tuple(f"client-{index}" for index in range(self.clients))

    @property
    def links(self) -> tuple[tuple[str, str], ...]:
        """Who dials whom; steps go the same way, but for the last stage's."""
        names = self.stage_names
        ends = (names[0],) if self.stages == 1 else (names[0], names[-1])
        dialled = tuple((client, end) for client in self.client_names for end in ends)
        return (*dialled, *pairwise(names))

    @property
    def positions_max(self) -> int:
        """What a request opens for."""
        return self.prompt_positions + self.tokens

    @property
    def round_us(self) -> int:
        """About what one token takes when nothing goes wrong."""
        hop_us = self.delay_us + self.jitter_us // 2
        return (self.stages + 1) * hop_us + self.stages * self.compute_us + 1_000

    @property
    def worst_us(self) -> int:
        """More than one step can take when nothing goes wrong: short credit makes it go in many rounds."""
        layout = ActivationLayout(codec=ActivationCodec.F32, width=self.row_width)
        step_bytes = layout.payload_bytes(min(self.chunk_positions, self.prompt_positions)) + 200
        streams = self.clients * self.requests * (1 + -(-self.prompt_positions // self.chunk_positions))
        window_bytes = min(self.window_bytes, self.stream_window_bytes)
        rounds = 2 + streams * -(-step_bytes // window_bytes)
        return (
            4 * rounds * (self.stages + 1) * (2 * (self.delay_us + self.jitter_us) + self.compute_us + 1_000)
        )


_TIGHT: Mapping[str, Sequence[int]] = MappingProxyType(
    {
        "parked_steps_max": (1, 2),
        "parked_us_max": (5_000, 50_000),
        "retained_outputs_max": (1, 2),
        "requests_max": (1, 2),
        "queued_steps_max": (1, 2),
        "request_idle_us_max": (60_000, 300_000),
        "open_us_max": (60_000, 500_000),
        "streams_per_connection_max": (2, 4),
        "step_positions_max": (2, 4),
        "clock_skew_s": (1, 2),
        "handshake_us_max": (20_000, 200_000),
        "status_delay_us": (0, 100_000),
        "silence_us_max": (200_000, 1_000_000),
        "abandoned_us_max": (1_000, 50_000),
        "queued_bytes_max": (64, 512),
        "parked_bytes_max": (64, 512),
        "incoming_bytes_max": (512, 4_096),
    }
)
"""Values at which a limit is met in a short run. One more belongs at the end: limits have a stream of
draws to themselves, so that most seeds stay what they are."""


def _draw_limits(random: _random.Random) -> tuple[tuple[str, int], ...]:
    if random.random() < 0.4:
        return ()
    chance = random.choice((0.1, 0.3, 0.6))
    return tuple((name, random.choice(values)) for name, values in _TIGHT.items() if random.random() < chance)


def _draw_budgets(random: _random.Random, drawn: SimOptions) -> SimOptions:
    """Ample, about what is needed, or too little."""
    fair_us = drawn.round_us
    chunks = -(-drawn.prompt_positions // drawn.chunk_positions)
    factor = random.choice((0, 0, 0, 4, 2, 1))
    if not factor:
        first_us, per_us = 10_000_000, 5_000_000
    else:
        first_us, per_us = factor * fair_us * (1 + chunks), factor * fair_us
    valid_s = random.choice((600, 600, 600, 1))
    return replace(drawn, first_token_us=first_us, per_token_us=per_us, valid_s=valid_s)


def _draw_schedule(random: _random.Random, drawn: SimOptions) -> SimOptions:
    """In some runs a whole budget, a plan or a short queue; from a stream of their own, as limits are."""
    fair_us = drawn.round_us * (drawn.tokens + 4)
    late_action = drawn.late_action
    if late_action == LateAction.FAIL and not drawn.rogue and random.random() < 0.5:
        late_action = LateAction.REROUTE
    return replace(
        drawn,
        total_us=random.choice((0, 0, 0, fair_us // 2, 2 * fair_us, 20 * fair_us)),
        stage_budget_us=random.choice((0, 0, drawn.compute_us, 2 * drawn.compute_us)),
        queue_steps=random.choice((256, 256, 256, 64, 8, 2)),
        late_action=late_action,
    )


def _draw_faults(random: _random.Random, drawn: SimOptions) -> SimOptions:
    """Some kinds, each often or seldom, while the requests are under way."""
    kinds = [kind for kind in FaultKind if kind is not FaultKind.ROGUE]
    chance = random.choice((0.1, 0.3, 0.8))
    weights = tuple((kind, random.choice((1, 1, 4))) for kind in kinds if random.random() < chance)
    busy_us = (drawn.tokens + 6) * drawn.round_us + drawn.requests * drawn.gap_us
    return replace(
        drawn,
        faults=random.choice((0, 1, 2, 4, 8)) if weights else 0,
        fault_weights=weights,
        safety_us=min(20_000_000, busy_us * random.choice((1, 1, 3))),
    )


def _draw_rogue(random: _random.Random, drawn: SimOptions) -> SimOptions:
    """In some runs one participant deviates."""
    if random.random() < 0.65:
        return drawn
    name = random.choice(list(DEVIATIONS))
    late_action = DEVIATIONS[name].late_action or drawn.late_action
    return replace(drawn, rogue=name, late_action=late_action)
