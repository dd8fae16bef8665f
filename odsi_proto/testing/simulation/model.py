"""A model that notices incoherence: every output depends on the whole history before it.

A stage's row for a position is a hash of the stage, of all rows that it has taken up to there and
of nothing else; the client's next token is a hash of the last stage's row. A step that is missing,
doubled, out of order or another request's therefore changes every token after it.
"""

from collections.abc import Sequence
from hashlib import sha256

VOCABULARY = 1 << 16


def embed(token: int, position: int, row_bytes: int) -> bytes:
    """The client's row for a token at a position."""
    return _stretch(b"embed" + token.to_bytes(4, "big") + position.to_bytes(4, "big"), row_bytes)


def next_token(row: bytes) -> int:
    """The head: from the last stage's last row to the next token."""
    return int.from_bytes(sha256(b"head" + row).digest()[:2], "big")


class StageMemory:
    """What a stage holds of one request: a digest of its history after each position."""

    __slots__ = ("_history", "_stage")

    def __init__(self, stage: int) -> None:
        self._stage = stage.to_bytes(2, "big")
        self._history: list[bytes] = [b""]

    @property
    def positions(self) -> int:
        """Positions held."""
        return len(self._history) - 1

    def run(self, position: int, rows: Sequence[bytes], row_bytes: int) -> list[bytes]:
        """The output rows for input rows from ``position`` on; what was held beyond it is forgotten."""
        del self._history[position + 1 :]
        digest, out = self._history[-1], []
        for row in rows:
            digest = sha256(self._stage + digest + row).digest()
            self._history.append(digest)
            out.append(_stretch(digest, row_bytes))
        return out


def split_rows(payload: bytes, row_bytes: int) -> list[bytes]:
    """A payload as rows."""
    return [payload[at : at + row_bytes] for at in range(0, len(payload), row_bytes)]


def expected_tokens(prompt: Sequence[int], tokens: int, stages: int, row_bytes: int) -> tuple[int, ...]:
    """The oracle: what a request must yield if nothing goes wrong, computed in one place."""
    memories = [StageMemory(stage) for stage in range(stages)]
    found: list[int] = []
    fed, position = list(prompt), 0
    while len(found) < tokens:
        rows = [embed(token, position + offset, row_bytes) for offset, token in enumerate(fed)]
        for memory in memories:
            rows = memory.run(position, rows, row_bytes)
        position += len(fed)
        fed = [next_token(rows[-1])]
        found += fed
    return tuple(found)


def _stretch(seed: bytes, row_bytes: int) -> bytes:
    digest = sha256(seed).digest()
    return (digest * (row_bytes // len(digest) + 1))[:row_bytes]
