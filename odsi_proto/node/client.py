"""A client: embeds tokens, sends rows down a path, applies the head to what comes back, samples."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import Self

import torch

from odsi_proto.errors import CapacityError, ConfigError, LocalProtocolError, PeerError, RequestFailedError
from odsi_proto.kernels.codecs import decode_rows, encode_rows
from odsi_proto.kernels.head import ClientModel
from odsi_proto.kernels.local import positions_needed, prompt_tokens
from odsi_proto.kernels.sampling import Sampler, Sampling
from odsi_proto.kernels.vocabulary import load_tokenizer
from odsi_proto.limits import PREFILL_CHUNK_POSITIONS
from odsi_proto.node.config import ClientConfig
from odsi_proto.node.driver import Driver, choices, now_us, unix_s_at_zero
from odsi_proto.node.model import Progress, no_progress, open_model
from odsi_proto.node.result import FinishReason, GenerationResult, TokenEvent
from odsi_proto.node.tally import Tally
from odsi_proto.routing.path import Peer, check_path, plan_path
from odsi_proto.statemachine.claim import RequestSpec
from odsi_proto.statemachine.client import ClientEndpoint
from odsi_proto.statemachine.effects import (
    Effect,
    Established,
    PathReady,
    RequestFailed,
    RowsArrived,
    SendStep,
    StatusArrived,
)
from odsi_proto.statemachine.session import SelfDescription
from odsi_proto.units import ConnectionId, Micros, ParticipantId, Position, RequestId
from odsi_proto.wire.codepoints import ErrorCode, Role
from odsi_proto.wire.messages import Offer, StagePlan
from odsi_proto.wire.tensor import ActivationLayout

FIRST_TOKEN_US = Micros(120_000_000)
"""Budget of a prompt: a full context of 8,192 positions in three stages of a slow machine."""

PER_TOKEN_US = Micros(10_000_000)
"""Budget of a decode step: 100 times what an idle machine needs, and still bounded."""

REQUEST_VALID_S = 24 * 3_600
"""How long the stages may take steps of a request."""

REPORT_S = 0.5
"""How long the last STATUS of a finished request may take to arrive."""


@dataclass(slots=True)
class _Run:
    """What a generation waits for."""

    request: RequestId
    tally: Tally
    ready: asyncio.Future[None]
    rows: asyncio.Queue[RowsArrived | RequestFailedError]
    last_step: Position = Position(0)
    """First position of the step whose rows came last."""
    error: RequestFailedError | None = None
    """Why the request ended, once it has."""
    news: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when there may be credit for a further step, or none ever again."""

    def fail(self, error: RequestFailedError) -> None:
        """End the wait for the path, for credit or for rows, whichever it is."""
        self.error = error
        self.news.set()
        if self.ready.done():
            self.rows.put_nowait(error)
        else:
            self.ready.set_exception(error)


class Client:
    """``async with Client(...) as client``, then ``async for event in client.generate(...)``."""

    def __init__(
        self,
        config: ClientConfig,
        peers: Sequence[Peer],
        *,
        fixed_path: bool,
        progress: Progress | None = None,
    ) -> None:
        """``peers`` is the path itself, in order, or with ``fixed_path`` False whom to choose one from."""
        if not peers:
            raise ConfigError("no peers: a path needs at least one")
        self.config = config
        self.path: tuple[Peer, ...] = ()
        """The stages in order; known once entered."""
        self.model_root = b""
        self._open_files = ExitStack()
        self._peers = tuple(peers)
        self._fixed_path = fixed_path
        self._progress = progress or no_progress
        self._waiting: dict[ConnectionId, asyncio.Future[Established]] = {}
        self._connections: dict[ParticipantId, ConnectionId] = {}
        self._offers: dict[ParticipantId, tuple[Offer, ...]] = {}
        self._runs: dict[RequestId, _Run] = {}

    async def __aenter__(self) -> Self:
        if self._fixed_path:
            self.path = self._peers
        torch.set_num_threads(self.config.threads)  # counts for this thread, which runs the head
        try:
            await asyncio.to_thread(self._load)
            if self._fixed_path:
                check_path(self.path, self.model.config.layers_count)
        except BaseException:
            self._open_files.close()
            raise
        self._endpoint = ClientEndpoint(
            about=SelfDescription(
                signer=self.config.signer, roles=(Role.CLIENT,), profiles=(self.config.profile,)
            ),
            limits=self.config.limits,
            choices=choices,
            unix_s_at_zero=unix_s_at_zero(),
        )
        self._driver = Driver(self._endpoint, self, self.config.transport)
        try:
            if not self._fixed_path:
                self.path = await self._plan()
            for peer in (self.path[0], self.path[-1]):
                await self._connect(peer)
        except BaseException:
            self._driver.shut_down()
            self._open_files.close()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._driver.shut_down()
        closed = RequestFailedError("the client was closed")
        for run in self._runs.values():
            run.fail(closed)
        for waiting in self._waiting.values():
            waiting.set_exception(PeerError("the client was closed"))
        self._open_files.close()

    def prompt_tokens(self, prompt: str, *, chat: bool) -> list[int]:
        """The ids of a prompt, in the model's chat template or as raw text; raises ``OdsiError``.

        Blocks while the template runs in its sandbox, a fraction of a second.
        """
        return prompt_tokens(
            self._source, self.tokenizer, prompt, chat=chat, context=self.model.config.context
        )

    async def probe(self) -> None:
        """Run one real step through every stage and forget it; raises as :meth:`generate` does."""
        async for _ in self.generate([0], max_tokens=1, sampling=Sampling.greedy()):
            pass

    async def generate(
        self, prompt_ids: Sequence[int], *, max_tokens: int, sampling: Sampling
    ) -> AsyncIterator[TokenEvent | GenerationResult]:
        """Yield every token as it is sampled, then the result.

        Raises ``RequestFailedError`` or ``PeerError`` that names the stage, and ``CapacityError``
        for a prompt that the model's context can not hold.
        """
        context = self.model.config.context
        if max_tokens < 1:
            raise ConfigError(f"max tokens must be at least 1, not {max_tokens}")
        if not prompt_ids:
            raise ConfigError("the prompt is empty")
        if len(prompt_ids) > context:
            raise CapacityError(f"the prompt has {len(prompt_ids)} tokens, the model's context is {context}")
        positions_max = positions_needed(len(prompt_ids), max_tokens, context)
        run = await self._open(positions_max)
        try:
            await run.ready
            async for event in self._decode(run, prompt_ids, max_tokens, positions_max, Sampler(sampling)):
                yield event
        finally:
            self._driver.act(self._endpoint.cancel(run.request, ErrorCode.NO_ERROR, now=now_us()))
            del self._runs[run.request]

    def perform(self, effect: Effect) -> None:
        """The driver hands over what is not about bytes."""
        match effect:
            case Established():
                waiting = self._waiting.pop(effect.connection, None)
                if waiting is not None and not waiting.done():
                    waiting.set_result(effect)
            case PathReady():
                ready = self._runs[effect.request].ready
                if not ready.done():  # whoever waited may have been cancelled in this turn
                    ready.set_result(None)
            case RowsArrived():
                self._runs[effect.request].rows.put_nowait(effect)
                self._runs[effect.request].news.set()
            case StatusArrived():
                self._runs[effect.request].tally.add_status(effect.records)
                self._runs[effect.request].news.set()
            case RequestFailed():
                self._fail(effect)
            case _:
                raise LocalProtocolError(f"a client has no {type(effect).__name__}")

    def gone(self, connection: ConnectionId, reason: str) -> None:
        """A connection is gone: whoever waits for it is told."""
        waiting = self._waiting.pop(connection, None)
        if waiting is not None and not waiting.done():
            waiting.set_exception(PeerError(reason))
        for participant, known in tuple(self._connections.items()):
            if known == connection:
                del self._connections[participant]

    def _load(self) -> None:
        config = self.config
        self._source, manifest = self._open_files.enter_context(
            open_model(config.model, config.manifest, self._progress)
        )
        self.model = ClientModel.load(self._source, manifest, profile=config.profile, threads=config.threads)
        self.tokenizer = load_tokenizer(self._source)
        self.model_root = manifest.root

    async def _plan(self) -> tuple[Peer, ...]:
        """Ask the peers without layers what they run, and choose a path."""
        known = []
        for peer in self._peers:
            if peer.layers is not None:
                known.append(peer)
                continue
            await self._connect(peer)
            offers = self._offers[peer.participant]
            fitting = [offer for offer in offers if offer.model_root == self.model_root]
            if offers and not fitting:
                what = f"runs model {offers[0].model_root.hex()}, this client has {self.model_root.hex()}"
                raise PeerError(f"{peer.label} {what}")
            known += [replace(peer, layers=offer.layers) for offer in fitting]
        return plan_path(known, self.model.config.layers_count)

    async def _connect(self, peer: Peer) -> None:
        if peer.participant in self._connections:
            return
        connection = await self._driver.quic.dial(peer.host, peer.port, peer.participant)
        waiting = asyncio.get_running_loop().create_future()
        self._waiting[connection] = waiting
        try:
            established: Established = await waiting
        except PeerError as error:
            raise PeerError(f"{peer.label}: {error}") from error
        self._connections[peer.participant] = connection
        self._offers[peer.participant] = established.offers

    async def _open(self, positions_max: int) -> _Run:
        request = self._endpoint.new_request_id()
        run = _Run(request, Tally(self.path), asyncio.get_running_loop().create_future(), asyncio.Queue())
        for peer in (self.path[0], self.path[-1]):
            await self._connect(peer)
        spec = RequestSpec(
            model_root=self.model_root,
            width=self.model.config.width,
            stages=tuple(
                StagePlan(
                    participant=p.participant,
                    standbys=(),
                    layers=p.layers,
                    budget_us=Micros(0),
                    remaining_min_us=Micros(0),
                    remaining_max_us=PER_TOKEN_US,
                )
                for p in self.path
                if p.layers is not None
            ),
            codec=self.config.codec,
            profile=self.config.profile,
            positions_max=positions_max,
            rows_returned_max=1,
            first_token_us=FIRST_TOKEN_US,
            per_token_us=PER_TOKEN_US,
            valid_s=REQUEST_VALID_S,
        )
        first, last = (self._connections.get(p.participant) for p in (self.path[0], self.path[-1]))
        if first is None or last is None:
            lost = self.path[0 if first is None else -1]
            raise PeerError(f"{lost.label}: lost again before the request was opened")
        self._runs[request] = run
        self._driver.act(self._endpoint.open(request, spec, first=first, last=last, now=now_us()))
        return run

    async def _decode(
        self, run: _Run, prompt_ids: Sequence[int], max_tokens: int, positions_max: int, sampler: Sampler
    ) -> AsyncIterator[TokenEvent | GenerationResult]:
        tally, stream = run.tally, self.tokenizer.stream()
        tally.start(len(prompt_ids))
        first_stage = self._connections[self.path[0].participant]
        chunk = self._endpoint.step_positions_max(first_stage, PREFILL_CHUNK_POSITIONS)
        for first in range(0, len(prompt_ids), chunk):
            tokens = prompt_ids[first : first + chunk]
            await self._credit(run, len(tokens))
            self._send(run, tokens)
            await asyncio.sleep(0)  # what arrived meanwhile gets its turn
        position, text = Position(len(prompt_ids)), ""
        rows = await self._rows_up_to(run, position)
        while True:
            token = self._sample(tally, sampler, rows)
            is_end = token in self.tokenizer.end_ids
            piece = "" if is_end else stream.push(token)
            text += piece
            yield TokenEvent(token_id=token, position=position, text=piece)
            finish = _finish(is_end, len(tally.token_ids) >= max_tokens, position >= positions_max)
            if finish is not None:
                break
            self._send(run, (token,))
            position = Position(position + 1)
            rows = await self._rows_up_to(run, position)
        with suppress(TimeoutError):
            await asyncio.wait_for(tally.wait_reported(run.last_step), REPORT_S)
        yield tally.result(text + stream.finish(), finish)

    async def _credit(self, run: _Run, count: int) -> None:
        """Wait until the first stage takes a step of ``count`` positions, or the request has ended."""
        layout = ActivationLayout(codec=self.config.codec, width=self.model.config.width)
        while run.error is None and not self._endpoint.may_send(run.request, layout.payload_bytes(count)):
            run.news.clear()
            await run.news.wait()

    def _send(self, run: _Run, tokens: Sequence[int]) -> None:
        if run.error is not None:
            raise run.error
        with run.tally.embed_us.timed_us():
            payload = memoryview(encode_rows(self.config.codec, self.model.embed(tokens)))
        (step,) = self._endpoint.send_step(run.request, tokens, payload, now=now_us())
        assert isinstance(step, SendStep)
        run.tally.sent_bytes.add(len(step.header) + len(step.payload))
        self._driver.act((step,))

    async def _rows_up_to(self, run: _Run, end: Position) -> RowsArrived:
        """The rows of the step that ends at ``end``; those of earlier prompt chunks are passed over."""
        while True:
            arrived = await run.rows.get()
            if isinstance(arrived, RequestFailedError):
                raise arrived
            if arrived.end == end:
                run.last_step = arrived.position
                return arrived

    def _sample(self, tally: Tally, sampler: Sampler, arrived: RowsArrived) -> int:
        head_us, sample_us = tally.head_us, tally.sample_us
        with head_us.timed_us():
            rows = decode_rows(self.config.codec, arrived.payload, self.model.config.width)
            logits = self.model.logits(rows[-1])
        with sample_us.timed_us():
            token = sampler.pick(logits)
        tally.token(token)
        return token

    def _fail(self, effect: RequestFailed) -> None:
        run, stage = self._runs[effect.request], effect.stage
        who = "the path" if stage is None else f"stage {stage} ({self.path[stage].label})"
        error = RequestFailedError(f"{who}: {ErrorCode.name_of(effect.code)}: {effect.reason}")
        run.fail(error)


def _finish(is_end: bool, is_enough: bool, is_full: bool) -> FinishReason | None:
    if is_end:
        return FinishReason.END_TOKEN
    if is_enough:
        return FinishReason.MAX_TOKENS
    return FinishReason.CONTEXT_FULL if is_full else None
