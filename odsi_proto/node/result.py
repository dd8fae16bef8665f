"""What a generation tells its caller while it runs and when it ends, distributed or local."""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from odsi_proto.units import LayerRange, Micros, ParticipantId, Position


class FinishReason(StrEnum):
    """Why no further token was made."""

    END_TOKEN = "end_token"
    MAX_TOKENS = "max_tokens"
    CONTEXT_FULL = "context_full"


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenEvent:
    """One token, as soon as it is sampled."""

    token_id: int
    position: Position
    text: str
    """What the token adds to the text; empty while a character is incomplete."""


class Spread(NamedTuple):
    """A duration over the decode steps; all zero if there was none."""

    mean_us: int
    p50_us: int
    p99_us: int

    @classmethod
    def of(cls, durations_us: Iterable[int]) -> "Spread":
        """Mean, median and 99th percentile by nearest rank."""
        ordered = sorted(durations_us)
        count = len(ordered)
        if not count:
            return cls(0, 0, 0)
        return cls(round(sum(ordered) / count), ordered[(count - 1) // 2], ordered[(99 * count - 1) // 100])


class HopTimes(NamedTuple):
    """Where the time of one step at one stage went."""

    transfer_us: int
    """The way of the input: the sender's one-way estimate and first to last byte."""
    queue_us: int
    compute_us: int
    coordination_us: int
    remaining_us: int
    """What was left of the budget when the step arrived."""
    output_bytes: int
    flags: int
    """What the stage says of it: of ``StatusFlag``."""

    @property
    def total_us(self) -> int:
        """From its input's first bit on the way to its output's hand-over."""
        return self.transfer_us + self.queue_us + self.compute_us + self.coordination_us


class StepTimes(NamedTuple):
    """One step as its client saw it. Instants are microseconds since the first row was sent."""

    position: int
    positions: int
    begun_us: int
    """When the client began to embed it."""
    embed_us: int
    send_us: int
    sent_bytes: int
    hops: tuple[HopTimes | None, ...]
    """One for each stage; None where no report came."""
    return_us: int
    """The way of the rows back, as far as the client can tell."""
    arrived_us: int
    """When the rows were here; -1 if they never were."""
    head_us: int
    """0, as is the next, for a prompt chunk that is not the last."""
    sample_us: int
    done_us: int
    """When its token was sampled, or for such a chunk when its rows came."""

    @property
    def known_us(self) -> int:
        """All parts that somebody has measured or estimated."""
        hops_us = sum(hop.total_us for hop in self.hops if hop is not None)
        return self.embed_us + self.send_us + hops_us + self.return_us + self.head_us + self.sample_us


@dataclass(frozen=True, slots=True, kw_only=True)
class StageReport:
    """Where one stage's time and bytes went, over the decode steps."""

    participant: ParticipantId | None
    """None in a single-process run."""
    layers: LayerRange
    transfer: Spread
    queue: Spread
    compute: Spread
    coordination: Spread
    total: Spread
    """Of the four together."""
    bytes_per_token: int
    """Step header and activation that the stage sent on; 0 in a single-process run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientReport:
    """The client's own work, over the decode steps."""

    caller: Spread
    """What the program that takes the tokens did between one and the next."""
    embed: Spread
    send: Spread
    returned: Spread
    """The way of the rows back."""
    head: Spread
    sample: Spread
    bytes_per_token: int
    """Step header and activation that the client sent to the first stage; 0 in a single-process run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Budgets:
    """What the client asked for."""

    first_token_us: int
    """From the first prompt chunk sent to the rows of the last."""
    per_token_us: int
    """From a decode step sent to its rows."""
    total_us: int | None = None
    """From the OPEN to the last rows; None if that was not asked for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerationResult:
    """A finished generation."""

    text: str
    token_ids: tuple[int, ...]
    """The end token included, where it came."""
    prompt_positions: int
    finish_reason: FinishReason
    reroutes: int = 0
    """Times that it went on along another path, whose stages are those named."""
    is_exact: bool = True
    """Whether the tokens are those of one path without interruption: a replay in the exact profile is."""
    first_token_us: Micros
    """From the first prompt row sent to the first token."""
    tokens_per_second: float
    """Decode steps per second, the first token not counted; 0 with fewer than two tokens."""
    token: Spread
    """From one token to the next: the parts of the stages and the client, and what is unaccounted."""
    unaccounted: Spread
    """Of a token's time, what nobody measured; below 0 where estimates of the way were too long."""
    stages: tuple[StageReport, ...]
    client: ClientReport
    budgets: Budgets | None
    """Of the last path; None in a single-process run."""
    steps: tuple[StepTimes, ...]
    """Of the last path, as many as are kept: first the chunks of what it ran as its prompt, then the decode
    steps; none of a single process."""
    replayed_positions: int
    """What the last path ran as its prompt: the prompt, and after a reroute also the tokens before it."""
    steps_left_out: int
    """Decode steps beyond those; the parts are of those kept."""
