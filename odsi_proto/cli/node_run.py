"""Runs a node until it is told to stop; the half of ``odsi node`` that needs torch."""

import os
from contextlib import AbstractContextManager, nullcontext

from odsi_proto.cli.failures import Terminated
from odsi_proto.cli.lifeline import on_end_of_input, run_until_signal
from odsi_proto.cli.output import Output, ProgressBar
from odsi_proto.cli.running import RunningNode, announced
from odsi_proto.node.config import NodeConfig
from odsi_proto.node.server import Node
from odsi_proto.wire.identity import participant_text

_LOCAL = {"0.0.0.0": "127.0.0.1", "::": "::1"}
"""An address that means all of a machine's, to one that a program on it can connect to."""


def serve(config: NodeConfig, output: Output, progress: ProgressBar, *, supervised: bool) -> None:
    """Serve until SIGTERM, which is an orderly end, or Ctrl-C, which raises ``KeyboardInterrupt``."""
    try:
        run_until_signal(_serve(config, output, progress, supervised=supervised))
    except Terminated:
        output.emit("stopped", {"reason": "SIGTERM"}, human="stopped")


async def _serve(config: NodeConfig, output: Output, progress: ProgressBar, *, supervised: bool) -> None:
    node = Node(config, progress=progress)
    if supervised:
        on_end_of_input(node.stop)
    async with node:
        progress.close()
        _announce(node, config, output)
        with _findable(node):
            await node.serve_forever()


def _findable(node: Node) -> AbstractContextManager[None]:
    """``odsi top`` finds the node without an address."""
    if node.metrics_address is None:
        return nullcontext()
    host, port = node.metrics_address
    there = _address(_LOCAL.get(host, host), port)
    participant = participant_text(node.participant)
    running = RunningNode(address=there, participant=participant, layers=str(node.config.layers))
    return announced(running, os.environ)


def _announce(node: Node, config: NodeConfig, output: Output) -> None:
    host, port = node.address
    fields = {
        "participant": participant_text(node.participant),
        "host": host,
        "port": port,
        "layers": str(config.layers),
        "model_root": node.model_root.hex(),
        "peer": str(node.peer),
        "profile": config.profile.name,
        "backend": node.backend,
        "backend_reason": node.backend_reason or None,
        "metrics": None if node.metrics_address is None else _address(*node.metrics_address),
    }
    where = f"serving layers {config.layers} of {config.model.name} on {host}:{port}"
    because = f": {node.backend_reason}" if node.backend_reason else ""
    human = f"{where}\n  {node.peer}\n  computed by {node.backend}{because}"
    if node.metrics_address is not None:
        human += f"\n  metrics on http://{_address(*node.metrics_address)}/metrics"
    output.emit("ready", fields, human=human)


def _address(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
