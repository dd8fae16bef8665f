"""An execution node: loads its layers, listens, stays connected to its peers, serves requests."""

import asyncio
from contextlib import suppress
from types import TracebackType
from typing import Self

import structlog

from odsi_proto.errors import ConfigError, LocalProtocolError, PeerError
from odsi_proto.kernels.engine import StageEngine
from odsi_proto.node.compute import Outcome
from odsi_proto.node.config import NodeConfig
from odsi_proto.node.driver import Driver, choices, now_us, unix_s_at_zero
from odsi_proto.node.execution import ExecutionQueue
from odsi_proto.node.metrics_server import MetricsServer
from odsi_proto.node.model import Progress, no_progress, open_model
from odsi_proto.node.observe import Observer
from odsi_proto.node.vitals import NodeFacts, Snapshot, Vitals
from odsi_proto.routing.path import Peer
from odsi_proto.statemachine.admission import StageOffer
from odsi_proto.statemachine.effects import Effect, Established, Release, Reserve, Run
from odsi_proto.statemachine.session import SelfDescription
from odsi_proto.statemachine.stage import StageEndpoint
from odsi_proto.units import ConnectionId, LayerRange, ParticipantId
from odsi_proto.wire.codepoints import Role
from odsi_proto.wire.identity import participant_short
from odsi_proto.wire.messages import Offer

log = structlog.get_logger(__name__)

DRAIN_S = 2.0
"""How long a leaving node lets open requests end."""

REDIAL_FIRST_S = 0.1
REDIAL_MAX_S = 5.0
"""A peer that is down is dialled again after a pause that doubles up to this, and starts anew once a
connection has lasted as long: a peer that lets everybody in and closes at once is down, too."""


class Node:
    """``async with Node(config) as node: await node.serve_forever()``."""

    def __init__(self, config: NodeConfig, *, progress: Progress | None = None) -> None:
        self.config = config
        self.address: tuple[str, int] = (config.host, config.port)
        """Where the node listens; the port is known once it does."""
        self.model_root = b""
        """Names the model on the wire; known once it is loaded."""
        self.backend = ""
        """What computes the layers; known once they are loaded."""
        self.backend_reason = ""
        """Why not something faster; empty if this is the fastest there is."""
        self.metrics_address: tuple[str, int] | None = None
        """Where metrics are served; None if they are not."""
        self._metrics: MetricsServer | None = None
        self._observer = Observer(now_us)
        self._progress = progress or no_progress
        self._stopped = asyncio.Event()
        self._redials: dict[ParticipantId, asyncio.Task[None]] = {}
        self._dialled: dict[ConnectionId, tuple[Peer, float]] = {}
        """Whom each connection leads to, and since when on the loop's clock."""
        self._pauses: dict[ParticipantId, float] = {}
        self._is_leaving = False

    @property
    def participant(self) -> ParticipantId:
        """Who the node is."""
        return self.config.signer.participant

    @property
    def peer(self) -> Peer:
        """How others reach it."""
        host, port = self.address
        return Peer(participant=self.participant, host=host, port=port, layers=self.config.layers)

    async def __aenter__(self) -> Self:
        config = self.config
        engine, offer = await asyncio.to_thread(self._load)
        self.model_root = offer.model_root
        self.backend, self.backend_reason = engine.backend.name, engine.choice.reason
        self._execution = ExecutionQueue(engine, threads=config.threads, limits=config.limits)
        self._endpoint = StageEndpoint(
            about=SelfDescription(
                signer=config.signer,
                roles=(Role.EXECUTION_NODE,),
                offers=(Offer(layers=offer.layers, model_root=offer.model_root),),
                profiles=(offer.profile,),
            ),
            offer=offer,
            limits=config.limits,
            choices=choices,
            unix_s_at_zero=unix_s_at_zero(),
        )
        self._endpoint.executor_measured(self._execution.load())
        self._driver = Driver(self._endpoint, self, config.transport, observer=self._observer)
        try:
            self.address = await self._driver.quic.bind(config.host, config.port)
            self._vitals = self._make_vitals()
            if config.metrics is not None:
                self._metrics = MetricsServer(*config.metrics, self._vitals.snapshot)
                self.metrics_address = self._metrics.address
                self._vitals.start()
        except ConfigError:
            self._driver.shut_down()
            self._execution.shut_down()
            raise
        for peer in config.peers:
            self._dial_soon(peer)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._is_leaving = True
        for task in self._redials.values():
            task.cancel()
        self._driver.act(self._endpoint.drain("the node is stopping", now=now_us()))
        with suppress(TimeoutError):
            async with asyncio.timeout(DRAIN_S):
                while self._endpoint.requests_open:
                    await asyncio.sleep(0.01)
        self._vitals.stop()
        if self._metrics is not None:
            await asyncio.to_thread(self._metrics.stop)
        self._driver.shut_down()
        await asyncio.to_thread(self._execution.shut_down)

    async def serve_forever(self) -> None:
        """Serve until cancelled or :meth:`stop` is called."""
        await self._stopped.wait()

    def stop(self) -> None:
        """End :meth:`serve_forever`."""
        self._stopped.set()

    def snapshot(self) -> Snapshot:
        """How the node is at this moment; in the event loop's thread."""
        return self._vitals.snapshot()

    def perform(self, effect: Effect) -> None:
        """The driver hands over what is not about bytes."""
        match effect:
            case Reserve():
                self._note_opening(effect)
                # Not here: the effects that came with this one go first.
                loop = asyncio.get_running_loop()
                loop.call_soon(self._reserved, effect, self._execution.reserve(effect))
            case Run():
                self._observer.queued(effect)
                self._execution.run(effect, lambda outcome: self._ran(effect, outcome))
                self._endpoint.executor_measured(self._execution.load())
            case Release():
                self._execution.release(effect)
                self._endpoint.executor_measured(self._execution.load())
            case Established():
                log.info("established", peer=participant_short(effect.participant))
            case _:
                raise LocalProtocolError(f"an execution node has no {type(effect).__name__}")

    def gone(self, connection: ConnectionId, reason: str) -> None:
        """Dial a configured peer again."""
        peer, since_s = self._dialled.pop(connection, (None, 0.0))
        if peer is not None:
            log.warning("peer lost", peer=peer.label, reason=reason)
            if asyncio.get_running_loop().time() - since_s >= REDIAL_MAX_S:
                self._pauses.pop(peer.participant, None)
            self._dial_soon(peer)

    def _load(self) -> tuple[StageEngine, StageOffer]:
        config = self.config
        with open_model(config.model, config.manifest, self._progress) as (file, manifest):
            engine = StageEngine.load(
                file,
                manifest,
                config.layers,
                profile=config.profile,
                threads=config.threads,
                kv_bytes_max=config.kv_bytes_max,
                progress=lambda done, total: self._progress("loading layers", done, total),
            )
            offer = StageOffer(
                layers=LayerRange(config.layers.first, config.layers.end),
                model_root=manifest.root,
                width=engine.config.width,
                positions_max=engine.config.context,
                profile=engine.profile,
            )
        return engine, offer

    def _make_vitals(self) -> Vitals:
        config = self.config
        facts = NodeFacts(
            participant=self.participant,
            host=self.address[0],
            port=self.address[1],
            model=config.model.name,
            model_root=self.model_root,
            layers=str(config.layers),
            profile=config.profile.name,
            backend=self.backend,
        )
        return Vitals(facts, observer=self._observer, driver=self._driver, execution=self._execution)

    def _note_opening(self, effect: Reserve) -> None:
        record = self._endpoint.state.requests.get(effect.request)
        if record is not None:  # else the same bytes ended it again
            stages = len(record.open.stages)
            client = record.message.signer
            self._observer.opening(effect.request, client, stage=record.stage, stages=stages)

    def _reserved(self, effect: Reserve, reason: str | None) -> None:
        if reason is None:
            self._driver.act(self._endpoint.reserved(effect.request, now=now_us()))
        else:
            self._driver.act(self._endpoint.reserve_failed(effect.request, reason, now=now_us()))

    def _ran(self, effect: Run, outcome: Outcome) -> None:
        request, position = effect.request, effect.position
        self._endpoint.executor_measured(self._execution.load())
        if outcome.is_expired:
            self._observer.failed(effect)
            self._driver.act(self._endpoint.expired(request, position, now=now_us()))
            return
        if outcome.rows is None:
            self._observer.failed(effect)
            self._driver.act(self._endpoint.failed(request, position, outcome.reason, now=now_us()))
            if outcome.bug:
                # As text: a renderer that shows local variables would show tensors for minutes.
                log.error("bug", position=position, traceback=outcome.bug)
            return
        effects = self._endpoint.output(
            request,
            position,
            outcome.rows,
            started_us=outcome.started_us,
            finished_us=outcome.finished_us,
            now=now_us(),
        )
        record = self._endpoint.reported(request, position)
        # Before anything else happens: what comes in while this goes out may end the request.
        self._observer.ran(effect, outcome.finished_us - outcome.started_us, record)
        self._driver.act(effects)

    def _dial_soon(self, peer: Peer) -> None:
        if self._is_leaving:
            return
        pause = self._pauses.get(peer.participant, 0.0)
        self._pauses[peer.participant] = min(max(2 * pause, REDIAL_FIRST_S), REDIAL_MAX_S)
        self._redials[peer.participant] = asyncio.create_task(self._dial(peer, pause))

    async def _dial(self, peer: Peer, pause: float) -> None:
        await asyncio.sleep(pause)
        try:
            connection = await self._driver.quic.dial(peer.host, peer.port, peer.participant)
        except PeerError as error:
            log.warning("peer not dialled", peer=peer.label, reason=str(error))
            self._dial_soon(peer)
            return
        self._dialled[connection] = (peer, asyncio.get_running_loop().time())
