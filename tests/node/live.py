"""Three real nodes and a client in one process, over real sockets, with the real model."""

import asyncio
import atexit
import shutil
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from tempfile import mkdtemp

from odsi_proto.kernels.gguf import GgufFile
from odsi_proto.kernels.manifest import build_manifest
from odsi_proto.kernels.model_path import default_model_path
from odsi_proto.kernels.sampling import Sampling
from odsi_proto.node.client import Client
from odsi_proto.node.config import ClientConfig, NodeConfig
from odsi_proto.node.result import GenerationResult
from odsi_proto.node.server import Node
from odsi_proto.routing.path import Peer, even_cuts
from odsi_proto.testing import UdpRelay, make_signer
from odsi_proto.wire.manifest import to_sidecar
from odsi_proto.wire.tensor import ActivationCodec

LAYERS = 30


@cache
def manifest() -> Path:
    """The default model's manifest, made once for all nodes of a test run."""
    path = Path(mkdtemp(prefix="odsi-test-")) / "manifest.json"
    atexit.register(shutil.rmtree, path.parent)
    with GgufFile(default_model_path()) as file:
        path.write_text(to_sidecar(build_manifest(file)))
    return path


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
async def spare(of: Swarm) -> AsyncIterator[Node]:
    """One more node with the layers of the last, to which the one before it is connected, too."""
    config = NodeConfig(
        model=default_model_path(),
        manifest=manifest(),
        layers=of.nodes[-1].config.layers,
        signer=make_signer(50),
        peers=(),
    )
    async with Node(config) as node:
        before = of.nodes[-2]
        connection = await before._driver.quic.dial(node.peer.host, node.peer.port, node.participant)
        sessions = before._endpoint.state.sessions
        while connection not in sessions or not sessions[connection].is_open:
            await asyncio.sleep(0.01)
            sessions = before._endpoint.state.sessions
        yield node


@asynccontextmanager
async def swarm(stages: int = 3, *, loss: float = 0.0, connected: bool = True) -> AsyncIterator[Swarm]:
    """Start nodes from the last to the first, each connected to the next through its relay."""
    # Nodes leave before their relays, so that what is in flight still arrives.
    async with AsyncExitStack() as relay_stack, AsyncExitStack() as node_stack:
        links = 1 if connected else 0
        nodes: list[Node] = []
        relays: list[UdpRelay] = []
        for index, layers in reversed(list(enumerate(even_cuts(LAYERS, stages)))):
            config = NodeConfig(
                model=default_model_path(),
                manifest=manifest(),
                layers=layers,
                signer=make_signer(index + 1),
                peers=tuple(behind(n, r) for n, r in zip(nodes[:links], relays[:links], strict=True)),
            )
            node = await node_stack.enter_async_context(Node(config))
            relay = await relay_stack.enter_async_context(UdpRelay(node.address, loss=loss, seed=index))
            nodes.insert(0, node)
            relays.insert(0, relay)
        yield Swarm(nodes, relays)


def client(path: Sequence[Peer], codec: ActivationCodec, *, fixed_path: bool = True) -> Client:
    """A client of the default model."""
    config = ClientConfig(
        model=default_model_path(), manifest=manifest(), signer=make_signer(99), codec=codec
    )
    return Client(config, path, fixed_path=fixed_path)


async def generate(of: Client, prompt: str, max_tokens: int, *, chat: bool = False) -> GenerationResult:
    """Generate greedily to the end and return the result."""
    prompt_ids = of.prompt_tokens(prompt, chat=chat)
    result = None
    async for event in of.generate(prompt_ids, max_tokens=max_tokens, sampling=Sampling.greedy()):
        result = event
    assert isinstance(result, GenerationResult)
    return result
