"""Integer types with a unit or a meaning, so that one can not be passed for another."""

from typing import NewType

Micros = NewType("Micros", int)
"""A duration or a monotonic instant in microseconds. Never wall-clock time, never a float."""

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
