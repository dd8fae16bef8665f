"""An execution node of the path: a stage endpoint with its executor; dials its successor."""

from typing import TYPE_CHECKING

from odsi_proto.statemachine.admission import StageOffer
from odsi_proto.statemachine.effects import Effect, Established, Release, Reserve, Run
from odsi_proto.statemachine.session import SelfDescription
from odsi_proto.statemachine.stage import StageEndpoint
from odsi_proto.testing.rogue import DEVIATIONS, RogueStage, make_rogue
from odsi_proto.testing.simulation.executor import Executor
from odsi_proto.testing.simulation.process import Process
from odsi_proto.units import LayerRange
from odsi_proto.wire.codepoints import Role
from odsi_proto.wire.messages import Offer

if TYPE_CHECKING:
    from odsi_proto.testing.simulation.world import World

LAYERS = 10
"""Of each stage."""


class StageProcess(Process):
    """Stage ``index`` of the path."""

    stage_endpoint: StageEndpoint | RogueStage
    executor: Executor

    def __init__(self, world: "World", name: str, index: int) -> None:
        self.index = index
        super().__init__(world, name)

    @property
    def dials(self) -> tuple[str, ...]:
        """Its successor, unless it is the last."""
        names = self.world.options.stage_names
        return names[self.index + 1 : self.index + 2]

    def make_endpoint(self) -> StageEndpoint | RogueStage:
        """With an executor of its own, as empty."""
        world = self.world
        layers = LayerRange(LAYERS * self.index, LAYERS * (self.index + 1))
        self.executor = Executor(self, self.index, world.options.row_width)
        endpoint = world.endpoints.stage(
            about=SelfDescription(
                signer=world.signers[self.name],
                roles=(Role.EXECUTION_NODE,),
                offers=(Offer(layers=layers, model_root=world.MODEL_ROOT),),
            ),
            offer=StageOffer(
                layers=layers,
                model_root=world.MODEL_ROOT,
                width=world.options.row_width,
                positions_max=world.options.positions_max,
            ),
            limits=world.limits,
            choices=world.stream(f"choices {self.name} {self.incarnation}").randbytes,
            unix_s_at_zero=self.clock.unix_s_at_zero,
        )
        self.stage_endpoint = endpoint
        if self.deviation:
            random = world.stream(f"rogue {self.incarnation}")
            self.stage_endpoint = make_rogue(DEVIATIONS[self.deviation], endpoint, random.randbytes)
        return self.stage_endpoint

    def perform(self, effect: Effect) -> None:
        """Hand it to the executor."""
        match effect:
            case Reserve():
                self.executor.reserve(effect)
            case Run():
                self.executor.run(effect)
            case Release():
                self.executor.release(effect)
            case Established():
                pass
            case _:
                raise AssertionError(f"an execution node has no {type(effect).__name__}")

    def forget(self) -> None:
        """The executor goes with the process; a new endpoint brings a new one."""

    def drain(self) -> None:
        """Leave: no new requests."""
        self.act("drain", lambda: self.endpoint.drain("leaving", now=self.now))
