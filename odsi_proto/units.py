"""Integer types with a unit or a meaning, so that one can not be passed for another."""

import re
from dataclasses import dataclass
from typing import NewType

from odsi_proto.errors import ConfigError

Micros = NewType("Micros", int)
"""A duration or a monotonic instant in microseconds. Never wall-clock time, never a float."""

Slack = NewType("Slack", int)
"""Microseconds to spare; negative where there are too few. Never on the wire."""

ConnectionId = NewType("ConnectionId", int)
"""An endpoint's own name for one connection; never on the wire, never reused."""

Handle = NewType("Handle", int)
"""A request's short name on one connection in one direction, chosen by the sender of its steps."""

Position = NewType("Position", int)
"""Index of a token in a request's sequence, from 0."""

StageIndex = NewType("StageIndex", int)
"""Index of a stage in a path, from 0 at the client's side."""

RequestId = NewType("RequestId", bytes)
"""16 random bytes chosen by the client."""

ParticipantId = NewType("ParticipantId", bytes)
"""A participant's 32-byte Ed25519 public key: the identity that outlives its hot keys."""

Tag = NewType("Tag", bytes)
"""An 8-byte coherence tag."""


@dataclass(frozen=True, slots=True, order=True)
class LayerRange:
    """Layers ``first`` up to, not including, ``end``."""

    first: int
    end: int

    def __post_init__(self) -> None:
        if not 0 <= self.first < self.end:
            raise ConfigError(f"layers {self.first}-{self.end}: expected LO-HI with 0 <= LO < HI")

    @classmethod
    def parse(cls, text: str) -> "LayerRange":
        """From ``LO-HI``; raises ``ConfigError``."""
        match = re.fullmatch(r"(\d{1,6})-(\d{1,6})", text.strip(), re.ASCII)
        if match is None:
            raise ConfigError(f"{text!r} is not a layer range: expected LO-HI, as in 0-10")
        return cls(int(match[1]), int(match[2]))

    def __str__(self) -> str:
        return f"{self.first}-{self.end}"

    def __len__(self) -> int:
        return self.end - self.first
