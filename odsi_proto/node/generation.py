"""One generation of a client: what it has so far, and the requests, one after the other, that make it."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

from odsi_proto.errors import RequestFailedError
from odsi_proto.kernels.sampling import Sampler
from odsi_proto.kernels.tokenizer import TextStream
from odsi_proto.node.result import FinishReason, GenerationResult
from odsi_proto.node.tally import Tally
from odsi_proto.routing.budget import Targets
from odsi_proto.routing.path import Peer
from odsi_proto.statemachine.effects import RequestFailed, RowsArrived
from odsi_proto.units import Micros, ParticipantId, Position, RequestId
from odsi_proto.wire.codepoints import LateAction

REROUTES_MAX = 3
"""Times that one generation may go on along another path: each costs a replay of all its tokens."""


@dataclass(slots=True)
class Generation:
    """What was asked for, and what there is of it; it outlives the requests that it is made of."""

    prompt_ids: tuple[int, ...]
    max_tokens: int
    positions_max: int
    sampler: Sampler
    stream: TextStream
    path: tuple[Peer, ...]
    tally: Tally
    targets: Targets | None
    """None: the client's own, which are ample, and no plan."""
    late_action: LateAction
    started_us: Micros
    text: str = ""
    reroutes: int = 0
    avoided: set[ParticipantId] = field(default_factory=set)
    """Stages that were too slow or too busy."""

    @property
    def tokens(self) -> tuple[int, ...]:
        """The whole sequence so far: what a request that continues it sends as its prompt."""
        return (*self.prompt_ids, *self.tally.token_ids)

    def go_on_along(self, path: tuple[Peer, ...]) -> None:
        """Continue with other stages."""
        self.path = path
        self.reroutes += 1
        self.tally.reroute(path, len(self.tokens))

    def finish(self, *, is_end: bool) -> FinishReason | None:
        """Why no token follows the one sampled last; None if one does."""
        if is_end:
            return FinishReason.END_TOKEN
        if len(self.tally.token_ids) >= self.max_tokens:
            return FinishReason.MAX_TOKENS
        # The token sampled last has no position yet.
        return FinishReason.CONTEXT_FULL if len(self.tokens) - 1 >= self.positions_max else None

    def result(self, finish_reason: FinishReason, *, is_replay_exact: bool) -> GenerationResult:
        """The finished generation."""
        return self.tally.result(
            self.text + self.stream.finish(),
            finish_reason,
            reroutes=self.reroutes,
            is_exact=is_replay_exact or not self.reroutes,
        )


@dataclass(slots=True)
class Attempt:
    """One request, and what is waited for of it."""

    request: RequestId
    path: Sequence[Peer]
    tally: Tally
    ready: asyncio.Future[None]
    rows: asyncio.Queue[RowsArrived | RequestFailedError] = field(default_factory=asyncio.Queue)
    news: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when there may be credit for a further step, or none ever again."""
    last_step: Position = Position(0)
    """First position of the step whose rows came last."""
    error: RequestFailedError | None = None
    """Why the request ended, once it has."""
    late_at: ParticipantId | None = None
    """Who was too slow or too busy, where another path may do it."""

    def fail(self, error: RequestFailedError, effect: RequestFailed | None = None) -> None:
        """End the wait for the path, for credit or for rows, whichever it is."""
        self.error = error
        if effect is not None and effect.is_reroutable and effect.stage is not None:
            self.late_at = self.path[effect.stage].participant
        self.news.set()
        if self.ready.done():
            self.rows.put_nowait(error)
        else:
            self.ready.set_exception(error)
