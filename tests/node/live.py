"""Three real nodes and a client in one process, over real sockets, with the real model."""

from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace

from odsi_proto.kernels.model_path import default_model_path
from odsi_proto.kernels.sampling import Sampling
from odsi_proto.node.client import Client
from odsi_proto.node.config import ClientConfig, NodeConfig
from odsi_proto.node.result import GenerationResult
from odsi_proto.node.server import Node
from odsi_proto.routing.path import Peer, even_cuts
from odsi_proto.testing import UdpRelay, make_signer
from odsi_proto.wire.tensor import ActivationCodec

LAYERS = 30


@dataclass
class Swarm:
    """Nodes in path order, and the relay in front of each: every hop passes one."""

    nodes: list[Node]
    relays: list[UdpRelay]

    @property
    def path(self) -> tuple[Peer, ...]:
        """The stages as their relays are dialled."""
        return tuple(behind(node, relay) for node, relay in zip(self.nodes, self.relays, strict=True))


def behind(node: Node, relay: UdpRelay) -> Peer:
    """A node as reached through its relay."""
    host, port = relay.address
    return replace(node.peer, host=host, port=port)


@asynccontextmanager
async def swarm(stages: int = 3, *, loss: float = 0.0, connected: bool = True) -> AsyncIterator[Swarm]:
    """Start nodes from the last to the first, each connected to the next through its relay."""
    async with AsyncExitStack() as stack:
        nodes: list[Node] = []
        relays: list[UdpRelay] = []
        for index, layers in reversed(list(enumerate(even_cuts(LAYERS, stages)))):
            config = NodeConfig(
                model=default_model_path(),
                layers=layers,
                signer=make_signer(index + 1),
                peers=tuple(behind(n, r) for n, r in zip(nodes[:connected], relays[:connected], strict=True)),
            )
            node = await stack.enter_async_context(Node(config))
            relay = await stack.enter_async_context(UdpRelay(node.address, loss=loss, seed=index))
            nodes.insert(0, node)
            relays.insert(0, relay)
        yield Swarm(nodes, relays)


def client(path: Sequence[Peer], codec: ActivationCodec, *, fixed_path: bool = True) -> Client:
    """A client of the default model."""
    config = ClientConfig(model=default_model_path(), signer=make_signer(99), codec=codec)
    return Client(config, path, fixed_path=fixed_path)


async def generate(of: Client, prompt: str, max_tokens: int, *, chat: bool = False) -> GenerationResult:
    """Generate greedily to the end and return the result."""
    prompt_ids = of.prompt_tokens(prompt, chat=chat)
    result = None
    async for event in of.generate(prompt_ids, max_tokens=max_tokens, sampling=Sampling.greedy()):
        result = event
    assert isinstance(result, GenerationResult)
    return result
