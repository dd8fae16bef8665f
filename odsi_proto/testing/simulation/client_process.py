"""A client: keeps connected to both ends of the path and drives its requests to an end."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from odsi_proto.errors import LocalProtocolError
from odsi_proto.statemachine.claim import RequestSpec
from odsi_proto.statemachine.client import ClientEndpoint
from odsi_proto.statemachine.effects import (
    Effect,
    Established,
    PathReady,
    RequestFailed,
    RowsArrived,
    StatusArrived,
)
from odsi_proto.statemachine.session import SelfDescription
from odsi_proto.testing.rogue import DEVIATIONS, RogueClient, RogueEffect, make_rogue
from odsi_proto.testing.simulation.model import embed, next_token, split_rows
from odsi_proto.testing.simulation.process import Process
from odsi_proto.testing.simulation.stage_process import LAYERS
from odsi_proto.units import LayerRange, Micros, RequestId
from odsi_proto.wire.codepoints import ErrorCode, LateAction, Role
from odsi_proto.wire.messages import StagePlan
from odsi_proto.wire.tensor import ActivationCodec, ActivationLayout, NumericProfile

if TYPE_CHECKING:
    from odsi_proto.testing.simulation.world import World

CONNECT_US_MAX = 12_000_000
"""How long a request waits for its connections before it is given up: two of the longest pauses
between dials, and the handshake."""
NO_ID = RequestId(b"")
THINK_ONE_IN = 4
"""A client that thinks at all does so before every fourth step or so."""


@dataclass(slots=True, kw_only=True)
class Request:
    """One request as its caller sees it."""

    name: str
    prompt: tuple[int, ...]
    id: RequestId = NO_ID
    tokens: list[int] = field(default_factory=list)
    sent: int = 0
    """Positions sent."""
    unanswered: set[int] = field(default_factory=set)
    """First positions of steps whose rows have not come."""
    opened_us: int = 0
    answered: int = 0
    """End of the furthest step whose rows have come."""
    started_us: int = 0
    """When it was opened, and when the first step was sent, by the client's clock."""
    chunk: int = 0
    is_open: bool = False
    is_ended: bool = False

    @property
    def is_busy(self) -> bool:
        """Whether a step is answered neither by its own rows nor by those of a later one."""
        return any(position >= self.answered for position in self.unanswered)


class ClientProcess(Process):
    """One client of the path."""

    client_endpoint: ClientEndpoint | RogueClient

    def __init__(self, world: "World", name: str) -> None:
        super().__init__(world, name)
        options = world.options
        prompts = world.stream(f"prompts {name}")
        self.requests = [
            Request(
                name=f"{name}/{number}",
                prompt=tuple(prompts.randrange(1 << 16) for _ in range(options.prompt_positions)),
            )
            for number in range(options.requests)
        ]
        self._by_id: dict[RequestId, Request] = {}
        self._row_bytes = ActivationLayout(codec=ActivationCodec.F32, width=options.row_width).row_bytes

    @property
    def dials(self) -> tuple[str, ...]:
        """Both ends of the path, once where they are one node."""
        names = self.world.options.stage_names
        return tuple(dict.fromkeys((names[0], names[-1])))

    def make_endpoint(self) -> ClientEndpoint | RogueClient:
        """A client's."""
        world = self.world
        endpoint = world.endpoints.client(
            about=SelfDescription(signer=world.signers[self.name], roles=(Role.CLIENT,)),
            limits=world.limits,
            choices=world.stream(f"choices {self.name} {self.incarnation}").randbytes,
            unix_s_at_zero=self.clock.unix_s_at_zero,
        )
        self.client_endpoint = endpoint
        if self.deviation:
            random = world.stream(f"rogue {self.incarnation}")
            self.client_endpoint = make_rogue(DEVIATIONS[self.deviation], endpoint, random.randbytes)
        return self.client_endpoint

    def begin(self) -> None:
        """Ask for every request when its time has come; outside the process, so a crash ends it too."""
        for number, request in enumerate(self.requests):
            self.world.heap.after(number * self.world.options.gap_us, self._want, request)
            at_us = number * self.world.options.gap_us + CONNECT_US_MAX
            self.world.heap.after(at_us, self._give_up, request)

    def perform(self, effect: Effect) -> None:
        """What the caller does about an event."""
        match effect:
            case Established():
                for request in self.requests:
                    if request.chunk and not request.is_open and not request.is_ended:
                        self.later(0, self._open, request)
            case PathReady():
                self.later(0, self._send_prompt, self._by_id[effect.request])
            case RowsArrived():
                self._rows(effect)
            case RequestFailed():
                request = self._by_id[effect.request]
                self._end(request, code=effect.code, stage=effect.stage, reason=effect.reason)
            case StatusArrived():
                self._go_on(self._by_id[effect.request])
            case _:
                raise AssertionError(f"a client has no {type(effect).__name__}")

    def forget(self) -> None:
        """Whoever asked for something learns that the client is gone."""
        for request in self.requests:
            if not request.is_ended:
                self._end(request, code=ErrorCode.PEER_LOST, stage=None, reason="the client crashed")

    def cancel_all(self) -> None:
        """The caller wants none of it any more."""
        for request in self.requests:
            if not request.is_ended:
                self.cancel(request, ErrorCode.CANCELLED)

    def cancel(self, request: Request, code: ErrorCode) -> None:
        """End a request as its caller."""
        if request.is_open:
            self.act(
                f"cancel {request.name} {code.name}",
                lambda: self.client_endpoint.cancel(request.id, code, now=self.now),
            )
        if not request.is_ended:
            self._end(request, code=code, stage=None, reason="cancelled by the caller")

    def spec(self) -> RequestSpec:
        """What every request asks for."""
        options = self.world.options
        stages = tuple(
            StagePlan(
                participant=self.world.signers[name].participant,
                standbys=(),
                layers=LayerRange(LAYERS * index, LAYERS * (index + 1)),
                budget_us=Micros(options.stage_budget_us),
                remaining_min_us=Micros(options.stage_budget_us * (options.stages - index)),
                remaining_max_us=Micros(options.per_token_us if options.stage_budget_us else 0),
            )
            for index, name in enumerate(options.stage_names)
        )
        return RequestSpec(
            model_root=self.world.MODEL_ROOT,
            width=options.row_width,
            stages=stages,
            codec=ActivationCodec.F32,
            profile=NumericProfile.FLOAT32,
            positions_max=options.positions_max,
            rows_returned_max=1,
            first_token_us=Micros(options.first_token_us),
            per_token_us=Micros(options.per_token_us),
            total_us=Micros(options.total_us) if options.total_us else None,
            valid_s=options.valid_s,
            late_action=LateAction(options.late_action),
        )

    def budget_us(self, request: Request) -> int:
        """What the next step's budget is, as TIME-002 says."""
        options = self.world.options
        budget_us = options.per_token_us
        if not request.sent or request.is_busy:
            since_us = self.now - request.started_us if request.sent else 0
            budget_us = options.first_token_us - since_us
        if options.total_us:
            budget_us = min(budget_us, options.total_us - (self.now - request.opened_us))
        return max(0, budget_us)

    def _want(self, request: Request) -> None:
        if not request.is_ended:
            request.chunk = self.world.options.chunk_positions
            self.deliver(self._open, request)

    def _give_up(self, request: Request) -> None:
        if not request.is_open and not request.is_ended:
            self._end(request, code=ErrorCode.NO_ROUTE, stage=None, reason="no connection to the path")

    def _open(self, request: Request) -> None:
        names = self.world.options.stage_names
        first, last = self.connected.get(names[0]), self.connected.get(names[-1])
        if request.is_open or request.is_ended or first is None or last is None:
            return
        request.id, request.is_open = self.client_endpoint.new_request_id(), True
        self._by_id[request.id] = request
        limit = self.client_endpoint.step_positions_max(first, request.chunk)
        request.chunk = min(request.chunk, limit)
        self.world.checks.opened(self, request)
        request.opened_us = self.now
        turned_down: list[LocalProtocolError] = []

        def open_it() -> tuple[RogueEffect, ...]:
            spec, now = self.spec(), self.now
            try:
                return self.client_endpoint.open(request.id, spec, first=first, last=last, now=now)
            except LocalProtocolError as error:  # a budget that can not be met, the client knows already
                turned_down.append(error)
                return ()

        self.act(f"open {request.name} {request.id.hex()[:8]}", open_it)
        for error in turned_down:
            self._end(request, code=ErrorCode.BUDGET_IMPOSSIBLE, stage=None, reason=str(error))

    def _send_prompt(self, request: Request) -> None:
        """As much of it as the first stage has given credit for."""
        while request.sent < len(request.prompt) and not request.is_ended:
            chunk = request.prompt[request.sent : request.sent + request.chunk]
            if not self.client_endpoint.may_send(request.id, len(chunk) * self._row_bytes):
                return
            self._send_tokens(request, chunk)

    def _go_on(self, request: Request) -> None:
        """There may be credit for more of the prompt now."""
        if 0 < request.sent < len(request.prompt):
            self.later(0, self._send_prompt, request)

    def _send_tokens(self, request: Request, tokens: tuple[int, ...]) -> None:
        if request.is_ended:
            return
        rows = (embed(token, request.sent + offset, self._row_bytes) for offset, token in enumerate(tokens))
        payload = memoryview(b"".join(rows))
        if not request.sent:
            request.started_us = self.now
        self.world.checks.stepped(self, request, request.sent, self.budget_us(request))
        request.unanswered.add(request.sent)
        request.sent += len(tokens)
        self.act(
            f"send_step {request.name} {len(tokens)}",
            lambda: self.client_endpoint.send_step(request.id, tokens, payload, now=self.now),
        )

    def _rows(self, effect: RowsArrived) -> None:
        request = self._by_id[effect.request]
        request.unanswered.discard(effect.position)
        request.answered = max(request.answered, effect.end)
        if effect.end != request.sent or request.sent < len(request.prompt):
            self._go_on(request)
            return  # a chunk of the prompt that is not its last
        token = next_token(split_rows(bytes(effect.payload), self._row_bytes)[-1])
        request.tokens.append(token)
        think_us = self.world.options.think_us
        if len(request.tokens) == self.world.options.tokens:
            self.later(0, self._complete, request)
        elif think_us and not self.random.randrange(THINK_ONE_IN):
            self.later(self.random.randint(0, think_us), self._send_tokens, request, (token,))
        else:
            self.later(0, self._send_tokens, request, (token,))

    def _complete(self, request: Request) -> None:
        if request.is_ended:
            return
        self._end(request, code=None, stage=None, reason="")
        self.cancel(request, ErrorCode.NO_ERROR)

    def _end(self, request: Request, *, code: int | None, stage: int | None, reason: str) -> None:
        self.world.checks.ended(self, request, code=code, stage=stage, reason=reason)
        request.is_ended = True
