"""What a generation tells its caller while it runs and when it ends, distributed or local."""

from dataclasses import dataclass
from enum import StrEnum

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


@dataclass(frozen=True, slots=True, kw_only=True)
class StageReport:
    """Where one stage's time and bytes went: means over the decode steps."""

    participant: ParticipantId | None
    """None in a single-process run."""
    layers: LayerRange
    compute_us: Micros
    queue_us: Micros
    transfer_us: Micros
    """The way of the input: the sender's one-way estimate and first to last byte."""
    bytes_per_token: int
    """Step header and activation that the stage sent on; 0 in a single-process run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientReport:
    """The client's own work: means over the decode steps."""

    embed_us: Micros
    head_us: Micros
    sample_us: Micros
    bytes_per_token: int
    """Step header and activation that the client sent to the first stage; 0 in a single-process run."""


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
    stages: tuple[StageReport, ...]
    client: ClientReport
