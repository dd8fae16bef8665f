"""Which request an event of a simulated run is about.

Few events say it: steps and most frames name handles. A client's call that opens a request says its
name; after that, what an endpoint does within a call belongs to the request that the call is about,
what arrives belongs to the request of what was sent, and a handle keeps its request.
"""

import re

from odsi_proto.testing.diagram import Event

_OPENED = re.compile(r"open (client-\d+/\d+) ([0-9a-f]{8})")
_NAMED = re.compile(r"\b(client-\d+/\d+|[0-9a-f]{8})\b")
_HANDLE = re.compile(r"\b(OPEN|STEP|ABANDON|ATTACHED|COMMIT|REFUSE|STATUS)\b[^;]*? handle (\d+)")
_ANSWERS = frozenset({"COMMIT", "REFUSE", "STATUS"})
"""They name the handle that their receiver chose."""

NOBODY = frozenset({"fault", "phase", "check"})


class Requests:
    """Ask once for every event, in their order."""

    def __init__(self) -> None:
        self._names: dict[str, str] = {}
        self._flows: dict[int, str] = {}
        self._handles: dict[tuple[str, str, bool, str], str] = {}
        self._now: dict[str, str] = {}
        """By node: what its call is about."""

    def __call__(self, event: Event) -> str:
        """The request's name, such as ``client-0/1``; empty if there is none or nobody knows."""
        opened = _OPENED.match(event.text)
        if opened is not None and event.kind == "call":
            self._names[opened[2]] = opened[1]
        named = self._named(event.text)
        match event.kind:
            case "call" | "timer":
                self._now[event.node] = named
            case "receive":
                named = named or self._flows.get(event.flow, "")
                self._now[event.node] = named
            case "send":
                named = self._sent(event, named)
            case kind if kind not in NOBODY:
                named = named or self._now.get(event.node, "")
        return named

    def _sent(self, event: Event, named: str) -> str:
        handle = _HANDLE.search(event.text)
        key = handle and (event.node, event.peer, handle[1] in _ANSWERS, handle[2])
        named = named or self._now.get(event.node, "") or (self._handles.get(key, "") if key else "")
        if key and named:
            self._handles[key] = named
        if event.flow:
            self._flows[event.flow] = named
        return named

    def _named(self, text: str) -> str:
        for word in _NAMED.findall(text):
            if "/" in word:
                return str(word)
            if word in self._names:
                return self._names[word]
        return ""
