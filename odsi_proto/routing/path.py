"""Peers as people write them, and paths that run every layer exactly once.

A peer is ``ID@HOST:PORT`` with an optional ``[LO-HI]``: the layers LO up to, not including, HI.
"""

import re
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from odsi_proto.errors import ConfigError
from odsi_proto.units import LayerRange, ParticipantId
from odsi_proto.wire.identity import parse_participant, participant_short, participant_text

_PEER = re.compile(
    r"(?P<id>[^@]*)@(?P<host>\[[0-9a-fA-F:.]+\]|[^:\[\]]+):(?P<port>\d{1,5})(?:\[(?P<layers>[^\]]*)\])?"
)
_FORM = "ID@HOST:PORT or ID@HOST:PORT[LO-HI]"


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """Somebody who can be dialled, and the layers that they are said to run."""

    participant: ParticipantId
    host: str
    port: int
    layers: LayerRange | None = None

    @classmethod
    def parse(cls, text: str) -> "Peer":
        """From ``ID@HOST:PORT[LO-HI]``; raises ``ConfigError``."""
        match = _PEER.fullmatch(text.strip())
        if match is None:
            raise ConfigError(f"{text!r} is not a peer: expected {_FORM}")
        port = int(match["port"])
        if not 0 < port < 65_536:
            raise ConfigError(f"{text!r} is not a peer: port {port} is not in 1-65535")
        return cls(
            participant=parse_participant(match["id"]),
            host=match["host"].strip("[]"),
            port=port,
            layers=None if match["layers"] is None else LayerRange.parse(match["layers"]),
        )

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        layers = "" if self.layers is None else f"[{self.layers}]"
        return f"{participant_text(self.participant)}@{host}:{self.port}{layers}"

    @property
    def label(self) -> str:
        """Short form for messages."""
        return f"{participant_short(self.participant)} at {self.host}:{self.port}"


def even_cuts(layers_count: int, stages_count: int) -> tuple[LayerRange, ...]:
    """Layers 0 to ``layers_count`` in ``stages_count`` ranges that differ by one layer at most."""
    if not 1 <= stages_count <= layers_count:
        raise ConfigError(f"{layers_count} layers can not be cut into {stages_count} stages")
    cuts = [round(index * layers_count / stages_count) for index in range(stages_count + 1)]
    return tuple(LayerRange(first, end) for first, end in pairwise(cuts))


def check_path(path: Sequence[Peer], layers_count: int) -> None:
    """Raise ``ConfigError`` unless the stages in order run layers 0 to ``layers_count``, each once."""
    reached = 0
    for peer in path:
        if peer.layers is None:
            raise ConfigError(f"stage {peer.label} of the path has no layers: write ID@HOST:PORT[LO-HI]")
        if peer.layers.first > reached:
            raise ConfigError(
                f"gap in the path: no stage before {peer.label} runs layers {reached}-{peer.layers.first}"
            )
        if peer.layers.first < reached:
            overlap = f"{peer.layers.first}-{min(reached, peer.layers.end)}"
            raise ConfigError(
                f"overlap in the path: layers {overlap} of {peer.label} already ran in a stage before it"
            )
        reached = peer.layers.end
    if reached < layers_count:
        raise ConfigError(f"gap in the path: no stage runs layers {reached}-{layers_count} of the model")
    if reached > layers_count:
        raise ConfigError(f"the path runs layers up to {reached}, but the model has {layers_count}")


def plan_path(peers: Sequence[Peer], layers_count: int) -> tuple[Peer, ...]:
    """The path with the fewest stages that runs every layer once, ties broken by the order given.

    Raises ``ConfigError`` that names the first layer nobody can run next.
    """
    steps: dict[int, Peer] = {}  # boundary reached -> the peer that reached it
    frontier = deque([0])
    while frontier and layers_count not in steps:
        boundary = frontier.popleft()
        for peer in peers:
            layers = peer.layers
            if layers is not None and layers.first == boundary and layers.end not in steps:
                steps[layers.end] = peer
                frontier.append(layers.end)
    if layers_count not in steps:
        furthest = max((end for end in steps if end <= layers_count), default=0)
        offers = ", ".join(str(peer.layers) for peer in peers) or "none"
        raise ConfigError(
            f"no path: nobody runs a range that starts at layer {furthest} and leads to {layers_count} "
            f"(offers: {offers})"
        )
    path: deque[Peer] = deque()
    boundary = layers_count
    while boundary:
        peer = steps[boundary]
        path.appendleft(peer)
        boundary = peer.layers.first if peer.layers is not None else 0
    return tuple(path)
