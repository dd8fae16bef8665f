"""A client: embeds tokens, sends rows down a path, applies the head to what comes back, samples."""

import asyncio
from collections.abc import AsyncIterator, Collection, Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import replace
from itertools import pairwise
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
from odsi_proto.node.generation import REROUTES_MAX, Attempt, Generation
from odsi_proto.node.model import Progress, no_progress, open_model
from odsi_proto.node.result import Budgets, GenerationResult, TokenEvent
from odsi_proto.node.tally import Tally
from odsi_proto.routing.budget import NO_PART, BudgetPlan, Targets, plan_from_reports
from odsi_proto.routing.path import Peer, check_path, plan_path
from odsi_proto.statemachine.budget import StageTime
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
from odsi_proto.wire.codepoints import ErrorCode, LateAction, Role
from odsi_proto.wire.frames import StatusRecord
from odsi_proto.wire.messages import Offer, StagePlan
from odsi_proto.wire.tensor import ActivationLayout, NumericProfile

FIRST_TOKEN_US = Micros(120_000_000)
"""Budget of a prompt: a full context of 8,192 positions in three stages of a slow machine."""

PER_TOKEN_US = Micros(10_000_000)
"""Budget of a decode step: 100 times what an idle machine needs, and still bounded."""

REQUEST_VALID_S = 24 * 3_600
"""How long the stages may take steps of a request."""

REPORT_S = 0.5
"""How long the last STATUS of a finished request may take to arrive."""


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
        self._attempts: dict[RequestId, Attempt] = {}
        self._seen: dict[ParticipantId, StageTime] = {}
        """What stages took of decode steps, as they reported it: grows with the peers that were asked."""

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
        self._driver = Driver(self._endpoint, self)
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
        for attempt in self._attempts.values():
            attempt.fail(closed)
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
        self,
        prompt_ids: Sequence[int],
        *,
        max_tokens: int,
        sampling: Sampling,
        targets: Targets | None = None,
        late_action: LateAction = LateAction.CONTINUE,
    ) -> AsyncIterator[TokenEvent | GenerationResult]:
        """Yield every token as it is sampled, then the result.

        With late action REROUTE a stage that is too slow or too busy is left out: what there is goes
        on along another path among the peers, which runs it all as a prompt first. Raises
        ``RequestFailedError`` or ``PeerError`` that names the stage, ``CapacityError`` for a prompt that
        the model's context can not hold, and ``ConfigError`` for targets that no path can meet.
        """
        context = self.model.config.context
        if max_tokens < 1:
            raise ConfigError(f"max tokens must be at least 1, not {max_tokens}")
        if not prompt_ids:
            raise ConfigError("the prompt is empty")
        if len(prompt_ids) > context:
            raise CapacityError(f"the prompt has {len(prompt_ids)} tokens, the model's context is {context}")
        generation = Generation(
            prompt_ids=tuple(prompt_ids),
            max_tokens=max_tokens,
            positions_max=positions_needed(len(prompt_ids), max_tokens, context),
            sampler=Sampler(sampling),
            stream=self.tokenizer.stream(),
            path=self.path,
            tally=Tally(self.path),
            targets=targets,
            late_action=late_action,
            started_us=now_us(),
        )
        is_finished = False
        while not is_finished:
            attempt = await self._open(generation)
            try:
                await attempt.ready
                async for event in self._decode(generation, attempt):
                    yield event
                is_finished = True
            except RequestFailedError as error:
                await self._go_elsewhere(generation, attempt, error)
            finally:
                self._driver.act(self._endpoint.cancel(attempt.request, ErrorCode.NO_ERROR, now=now_us()))
                del self._attempts[attempt.request]

    def perform(self, effect: Effect) -> None:
        """The driver hands over what is not about bytes."""
        match effect:
            case Established():
                waiting = self._waiting.pop(effect.connection, None)
                if waiting is not None and not waiting.done():
                    waiting.set_result(effect)
            case PathReady():
                ready = self._attempts[effect.request].ready
                if not ready.done():  # whoever waited may have been cancelled in this turn
                    ready.set_result(None)
            case RowsArrived():
                attempt = self._attempts[effect.request]
                attempt.tally.arrived(effect.position, effect.transfer_us)
                attempt.rows.put_nowait(effect)
                attempt.news.set()
            case StatusArrived():
                self._observe(self._attempts[effect.request], effect.records)
                self._attempts[effect.request].news.set()
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

    async def _plan(self, avoided: Collection[ParticipantId] = ()) -> tuple[Peer, ...]:
        """Ask the peers without layers what they run, and choose a path without those to avoid."""
        known = []
        for peer in self._peers:
            if peer.participant in avoided:
                continue
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

    async def _go_elsewhere(
        self, generation: Generation, attempt: Attempt, error: RequestFailedError
    ) -> None:
        """Choose a path without the stage that was late; raises ``error`` where there is none to choose."""
        if attempt.late_at is None:
            raise error
        if self._fixed_path:
            raise RequestFailedError(f"{error}; no other path: this one was given stage by stage") from error
        if generation.reroutes >= REROUTES_MAX:
            raise RequestFailedError(f"{error}; {generation.reroutes} other paths were tried") from error
        generation.avoided.add(attempt.late_at)
        try:
            path = await self._plan(generation.avoided)
        except (ConfigError, PeerError) as none:
            raise RequestFailedError(f"{error}; no other path: {none}") from error
        generation.go_on_along(path)

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

    async def _open(self, generation: Generation) -> Attempt:
        path = generation.path
        for peer in (path[0], path[-1]):
            await self._connect(peer)
        first, last = (self._connections.get(peer.participant) for peer in (path[0], path[-1]))
        if first is None or last is None:
            lost = path[0 if first is None else -1]
            raise PeerError(f"{lost.label}: lost again before the request was opened")
        plan = self._budgets(generation, first, last)
        generation.tally.budgets = Budgets(
            first_token_us=plan.first_token_us, per_token_us=plan.per_token_us, total_us=plan.total_us
        )
        spec = RequestSpec(
            model_root=self.model_root,
            width=self.model.config.width,
            stages=tuple(
                StagePlan(
                    participant=peer.participant,
                    standbys=(),
                    layers=peer.layers,
                    budget_us=part.budget_us,
                    remaining_min_us=part.remaining_min_us,
                    remaining_max_us=part.remaining_max_us,
                )
                for peer, part in zip(path, plan.stages, strict=True)
                if peer.layers is not None
            ),
            codec=self.config.codec,
            profile=self.config.profile,
            positions_max=generation.positions_max,
            rows_returned_max=1,
            first_token_us=plan.first_token_us,
            per_token_us=plan.per_token_us,
            total_us=plan.total_us,
            valid_s=REQUEST_VALID_S,
            late_action=generation.late_action,
        )
        request = self._endpoint.new_request_id()
        effects = self._endpoint.open(request, spec, first=first, last=last, now=now_us())
        ready = asyncio.get_running_loop().create_future()
        attempt = self._attempts[request] = Attempt(request, path, generation.tally, ready)
        self._driver.act(effects)
        return attempt

    def _budgets(self, generation: Generation, first: ConnectionId, last: ConnectionId) -> BudgetPlan:
        """What is asked of a path, from what is known of it; ``ConfigError`` if it can not be met."""
        targets = generation.targets
        if targets is None:
            return BudgetPlan(
                first_token_us=FIRST_TOKEN_US,
                per_token_us=PER_TOKEN_US,
                total_us=None,
                stages=(NO_PART,) * len(generation.path),
            )
        if targets.total_us is not None:
            left_us = Micros(max(0, targets.total_us - (now_us() - generation.started_us)))
            targets = replace(targets, total_us=left_us)
        return plan_from_reports(
            targets,
            [self._seen.get(peer.participant) for peer in generation.path],
            to_first_us=self._endpoint.one_way_us(first),
            return_us=self._endpoint.one_way_us(last),
            stage_us_min=self.config.limits.stage_us_min,
        )

    def _observe(self, attempt: Attempt, records: Sequence[StatusRecord]) -> None:
        """Keep what stages take of a decode step: the next plan is made of it."""
        attempt.tally.add_status(records)
        for record in records:
            if record.count == 1 and record.stage < len(attempt.path):
                stage_us = record.queue_us + record.compute_us + record.coordination_us
                time, who = StageTime(record.transfer_us, stage_us), attempt.path[record.stage].participant
                before = self._seen.get(who)
                self._seen[who] = time if before is None else before.followed_by(time)

    async def _decode(
        self, generation: Generation, attempt: Attempt
    ) -> AsyncIterator[TokenEvent | GenerationResult]:
        tally, tokens = generation.tally, generation.tokens
        if not tally.is_started:
            tally.start(len(tokens))
        first_stage = self._connections[attempt.path[0].participant]
        chunk = self._endpoint.step_positions_max(first_stage, PREFILL_CHUNK_POSITIONS)
        for part in prompt_chunks(tokens, chunk):
            await self._credit(attempt, len(part))
            self._send(attempt, part)
            await asyncio.sleep(0)  # what arrived meanwhile gets its turn
        position = Position(len(tokens))
        rows = await self._rows_up_to(attempt, position)
        while True:
            token = self._sample(tally, generation.sampler, rows)
            is_end = token in self.tokenizer.end_ids
            piece = "" if is_end else generation.stream.push(token)
            generation.text += piece
            yield TokenEvent(token_id=token, position=position, text=piece)
            finish = generation.finish(is_end=is_end)
            if finish is not None:
                break
            self._send(attempt, (token,))
            position = Position(position + 1)
            rows = await self._rows_up_to(attempt, position)
        with suppress(TimeoutError):
            await asyncio.wait_for(tally.wait_reported(attempt.last_step), REPORT_S)
        yield generation.result(finish, is_replay_exact=self.config.profile is NumericProfile.FLOAT32)

    async def _credit(self, attempt: Attempt, count: int) -> None:
        """Wait until the first stage takes a step of ``count`` positions, or the request has ended."""
        layout = ActivationLayout(codec=self.config.codec, width=self.model.config.width)
        while attempt.error is None and not self._endpoint.may_send(
            attempt.request, layout.payload_bytes(count)
        ):
            attempt.news.clear()
            await attempt.news.wait()

    def _send(self, attempt: Attempt, tokens: Sequence[int]) -> None:
        if attempt.error is not None:
            raise attempt.error
        tally = attempt.tally
        tally.begin(len(tokens))
        payload = memoryview(encode_rows(self.config.codec, self.model.embed(tokens)))
        tally.embedded()
        (step,) = self._endpoint.send_step(attempt.request, tokens, payload, now=now_us())
        assert isinstance(step, SendStep)
        # Before it leaves: whoever receives it may be at work before this thread goes on.
        tally.sent(len(step.header) + len(step.payload))
        self._driver.act((step,))

    async def _rows_up_to(self, attempt: Attempt, end: Position) -> RowsArrived:
        """The rows of the step that ends at ``end``; those of earlier prompt chunks are passed over."""
        while True:
            arrived = await attempt.rows.get()
            if isinstance(arrived, RequestFailedError):
                raise arrived
            if arrived.end == end:
                attempt.last_step = arrived.position
                return arrived

    def _sample(self, tally: Tally, sampler: Sampler, arrived: RowsArrived) -> int:
        tally.begin_head()
        rows = decode_rows(self.config.codec, arrived.payload, self.model.config.width)
        logits = self.model.logits(rows[-1])
        tally.headed()
        token = sampler.pick(logits)
        tally.sampled(token)
        return token

    def _fail(self, effect: RequestFailed) -> None:
        attempt, stage = self._attempts[effect.request], effect.stage
        who = "the path" if stage is None else f"stage {stage} ({attempt.path[stage].label})"
        where = "" if effect.position is None else f"position {effect.position}"
        reason = effect.reason if where in effect.reason else f"{effect.reason} ({where})"
        error = RequestFailedError(f"{who}: {ErrorCode.name_of(effect.code)}: {reason}")
        attempt.fail(error, effect)


def prompt_chunks(tokens: Sequence[int], positions: int) -> Iterator[Sequence[int]]:
    """A prompt in steps of at most so many positions; the last has more than one if there are several.

    A stage takes a step of one position for a decode step. Spec: TIME-028.
    """
    firsts = list(range(0, len(tokens), positions))
    if len(firsts) > 1 and len(tokens) - firsts[-1] == 1 and positions > 2:
        firsts[-1] -= 1
    for first, end in pairwise((*firsts, len(tokens))):
        yield tokens[first:end]
