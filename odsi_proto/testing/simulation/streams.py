"""One unidirectional stream on its way from one end of a connection to the other."""

from collections import deque
from random import Random

CUTS_MAX = 3
"""Pieces of a stream that is cut into a few: one more than this."""
DRIBBLE_BYTES = 24
"""Most bytes of a piece where everything comes in small pieces."""
PIECES_MAX = 24
"""Of one send; the rest comes whole."""


class Piece:
    """Consecutive bytes of a stream that travel together."""

    __slots__ = ("data", "fin", "flow", "reset", "stream", "text")

    def __init__(
        self,
        stream: "Stream",
        data: bytes,
        *,
        fin: bool,
        flow: int = 0,
        text: object = None,
        reset: bool = False,
    ) -> None:
        self.stream = stream
        self.data = data
        self.fin = fin
        self.flow = flow
        """Of the message that is whole with this piece; 0 if none is."""
        self.text = text
        """That message, for people."""
        self.reset = reset
        """Whether it is the news that the stream was given up, not bytes."""


class Stream:
    """What its sender's transport knows of it."""

    __slots__ = ("blocked", "id", "is_over", "last_arrival_us", "unread_bytes")

    def __init__(self, stream: int) -> None:
        self.id = stream
        self.last_arrival_us = 0
        """When the last piece on its way arrives; none may arrive before."""
        self.unread_bytes = 0
        self.blocked: deque[Piece] = deque()
        """Pieces that wait for credit."""
        self.is_over = False
        """Finished and read, or reset: whatever is still on its way is dropped."""


def cut(data: bytes, chunking: str, piece_bytes_max: int, random: Random) -> list[bytes]:
    """Cut ``data`` into pieces, an empty one now and then; each at most ``piece_bytes_max``."""
    if chunking == "whole" and len(data) <= piece_bytes_max:
        return [data]
    places: set[int] = set()
    match chunking:
        case "cut":
            places = {random.randint(0, len(data)) for _ in range(random.randint(0, CUTS_MAX))}
        case "dribble":
            at = 0
            while at < len(data) and len(places) < PIECES_MAX:
                at += random.randint(0, DRIBBLE_BYTES)
                places.add(at)
    ends = sorted(place for place in places if place < len(data))
    pieces, at = [], 0
    for end in (*ends, len(data)):
        while end - at > piece_bytes_max:
            pieces.append(data[at : at + piece_bytes_max])
            at += piece_bytes_max
        pieces.append(data[at:end])
        at = end
    return pieces
