"""The log of a run: one event a line, and a digest of all of them.

The digest is over a short form of every event (instant, node, kind, sizes and checksums of bytes),
which says the same as the line but costs a tenth of it: lines are made only where somebody reads.
"""

from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256

from odsi_proto.testing.simulation.describe import describe


@dataclass(frozen=True, slots=True, kw_only=True)
class LogEvent:
    """One thing that happened in a run; ``str()`` is its line."""

    at_us: int
    """Virtual microseconds since the run began."""
    node: str
    """``client-0``, ``stage-0``, ``rogue``, ``network`` or ``run``."""
    kind: str
    """``send receive call effect transition timer fault phase check``."""
    text: str
    """One line, the same in every run of the scenario."""
    peer: str = ""
    """The other end of a send or a receive; empty otherwise."""
    flow: int = 0
    """Joins a send with its receive; 0 for none."""

    def __str__(self) -> str:
        arrow = {"send": f" > {self.peer}", "receive": f" < {self.peer}"}.get(self.kind, "")
        return f"{self.at_us / 1000:12.3f} ms  {self.node:<9} {self.kind:<10}{arrow} {self.text}"


class Log:
    """Takes every event of a run, counts and digests it, and shows it to whoever observes."""

    FLUSH_EVENTS = 256
    """Short forms are hashed so many at a time: one call for all of them."""

    def __init__(self, observe: Callable[[LogEvent], None] | None) -> None:
        self.events_count = 0
        self._observe = observe
        self._hash = sha256()
        self._pending: list[str] = []

    def note(
        self,
        at_us: int,
        node: str,
        kind: str,
        brief: str,
        *,
        about: object = None,
        peer: str = "",
        flow: int = 0,
    ) -> None:
        """Record an event: ``brief`` tells it from every other, ``about`` is described to people."""
        self.events_count += 1
        self._pending.append(f"{at_us} {node} {kind} {brief}")
        if len(self._pending) >= self.FLUSH_EVENTS:
            self._flush()
        if self._observe is not None:
            text = brief if about is None else describe(about)
            self._observe(LogEvent(at_us=at_us, node=node, kind=kind, text=text, peer=peer, flow=flow))

    def show(self, at_us: int, node: str, kind: str, about: object) -> None:
        """An event that follows from one noted already: observers see it, the digest need not."""
        if self._observe is not None:
            self._observe(LogEvent(at_us=at_us, node=node, kind=kind, text=describe(about)))

    def digest(self) -> str:
        """SHA-256 over the short forms of all events so far, in hexadecimal."""
        self._flush()
        return self._hash.copy().hexdigest()

    def _flush(self) -> None:
        if self._pending:
            self._hash.update(("\n".join(self._pending) + "\n").encode())
            self._pending.clear()
