"""A client and three stages on a perfect network, connected as a path needs it."""

import random
from dataclasses import dataclass, field

from odsi_proto.limits import Limits
from odsi_proto.statemachine.admission import StageOffer
from odsi_proto.statemachine.claim import RequestSpec
from odsi_proto.statemachine.client import ClientEndpoint
from odsi_proto.statemachine.effects import Effect, Run
from odsi_proto.statemachine.session import SelfDescription
from odsi_proto.statemachine.stage import StageEndpoint
from odsi_proto.testing import MemoryNetwork, make_signer
from odsi_proto.units import ConnectionId, Handle, LayerRange, Micros, Position, RequestId, Tag
from odsi_proto.wire.codepoints import Role
from odsi_proto.wire.messages import Offer, StagePlan
from odsi_proto.wire.step import StepHeader
from odsi_proto.wire.tag import root_tag, tag_after
from odsi_proto.wire.tensor import ActivationCodec, ActivationLayout, NumericProfile

WIDTH = 4
MODEL_ROOT = bytes(range(32))
LAYOUT = ActivationLayout(codec=ActivationCodec.F32, width=WIDTH)


def rows(count: int, fill: int = 1) -> memoryview:
    """``count`` encoded rows."""
    return memoryview(bytes([fill]) * LAYOUT.payload_bytes(count))


def add_one(run: Run) -> bytes:
    """An executor that adds one to every byte and returns only the rows asked for."""
    wanted = LAYOUT.payload_bytes(run.rows_out_max)
    return bytes((byte + 1) % 256 for byte in run.payload)[-wanted:]


@dataclass
class Path:
    """The three-stage path of most tests."""

    network: MemoryNetwork
    client: ClientEndpoint
    stages: list[StageEndpoint]
    limits: Limits
    first: ConnectionId = field(init=False)
    first_at_stage: ConnectionId = field(init=False)
    """The first stage's end of the client's connection."""
    last: ConnectionId = field(init=False)
    links: list[tuple[ConnectionId, ConnectionId]] = field(default_factory=list)
    request: RequestId = field(init=False)
    forged_streams: int = 1_000_002

    def spec(self, **changes: object) -> RequestSpec:
        """What the client asks for, unless changed."""
        stages = tuple(
            StagePlan(
                participant=make_signer(index + 1).participant,
                standbys=(),
                layers=LayerRange(10 * index, 10 * index + 10),
                budget_us=Micros(0),
                remaining_min_us=Micros(0),
                remaining_max_us=Micros(1_000_000),
            )
            for index in range(len(self.stages))
        )
        values: dict[str, object] = {
            "model_root": MODEL_ROOT,
            "width": WIDTH,
            "stages": stages,
            "codec": ActivationCodec.F32,
            "profile": NumericProfile.FLOAT32,
            "positions_max": 32,
            "rows_returned_max": 1,
            "first_token_us": Micros(1_000_000),
            "per_token_us": Micros(1_000_000),
            "valid_s": 600,
        }
        return RequestSpec(**{**values, **changes})  # type: ignore[arg-type]

    def connect(self) -> None:
        """Dial as a path does: the client its first and last stage, each stage the next."""
        keys = [bytes(make_signer(i + 1).hot_key.verify_key) for i in range(len(self.stages))]
        self.first, self.first_at_stage = self.network.connect(
            self.client, self.stages[0], acceptor_key=keys[0]
        )
        self.last, _ = self.network.connect(self.client, self.stages[-1], acceptor_key=keys[-1])
        for index in range(len(self.stages) - 1):
            link = self.network.connect(
                self.stages[index], self.stages[index + 1], acceptor_key=keys[index + 1]
            )
            self.links.append(link)
        self.settle()

    def open(self, **changes: object) -> None:
        """Open a request along the path and let it become ready."""
        self.request = self.client.new_request_id()
        effects = self.client.open(
            self.request, self.spec(**changes), first=self.first, last=self.last, now=self.network.now
        )
        self.network.perform(self.client, effects)
        self.settle()

    def send(self, tokens: list[int], fill: int = 1) -> None:
        """Send one step of the request."""
        payload = rows(len(tokens), fill)
        effects = self.client.send_step(self.request, tokens, payload, now=self.network.now)
        self.network.perform(self.client, effects)

    def forge(self, header: StepHeader, fill: int = 1, payload: bytes | None = None) -> None:
        """Hand stage 0 a step as if the client had sent it, on a stream of its own."""
        self.forged_streams += 4
        body = bytes(rows(header.count, fill)) if payload is None else payload
        self.network.deliver(
            self.stages[0], self.first_at_stage, self.forged_streams, header.encode() + body, fin=True
        )
        self.settle()

    def header(self, position: int, count: int = 1, **changes: object) -> StepHeader:
        """A step header with the tags that follow from positions alone, unless changed."""
        values: dict[str, object] = {
            "handle": Handle(0),
            "lineage": 0,
            "attempt": 0,
            "position": Position(position),
            "count": count,
            "remaining_us": Micros(1_000_000),
            "owd_us": Micros(0),
            "tag_before": self.tag(position),
            "tag_after": self.tag(position + count),
        }
        return StepHeader(**{**values, **changes})  # type: ignore[arg-type]

    def tag(self, position: int) -> Tag:
        """The coherence tag of a history of zeros."""
        return tag_after(root_tag(self.request), b"", Position(0), [0] * position)

    def settle(self, us: int = 100_000) -> None:
        """Let what is under way arrive."""
        self.network.run(until=Micros(self.network.now + us))

    def seen(self, kind: type[Effect], *, at: StageEndpoint | ClientEndpoint | None = None) -> list[Effect]:
        """The effects of one kind at the client, or at one stage."""
        return [e for e in self.network.effects(at or self.client) if isinstance(e, kind)]


def make_path(stages_count: int, limits: Limits) -> Path:
    """A path of connected, established endpoints."""
    network = MemoryNetwork()
    choices = random.Random(7).randbytes
    client = ClientEndpoint(
        about=SelfDescription(signer=make_signer(0), roles=(Role.CLIENT,)),
        limits=limits,
        choices=choices,
        unix_s_at_zero=1_000_000,
    )
    network.add(client)
    stages = []
    for index in range(stages_count):
        layers = LayerRange(10 * index, 10 * index + 10)
        stage = StageEndpoint(
            about=SelfDescription(
                signer=make_signer(index + 1),
                roles=(Role.EXECUTION_NODE,),
                offers=(Offer(layers=layers, model_root=MODEL_ROOT),),
            ),
            offer=StageOffer(layers=layers, model_root=MODEL_ROOT, width=WIDTH, positions_max=64),
            limits=limits,
            choices=choices,
            unix_s_at_zero=1_000_000,
        )
        network.add(stage, compute=add_one)
        stages.append(stage)
    path = Path(network=network, client=client, stages=stages, limits=limits)
    path.connect()
    return path
