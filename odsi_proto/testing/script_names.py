"""Stable short names for what is random on the wire: ids, tags, tokens, payloads."""

from enum import Enum

from odsi_proto.units import ParticipantId, Position, RequestId, Tag
from odsi_proto.wire.identity import participant_short, participant_text
from odsi_proto.wire.tag import next_tag, root_tag

_SHORT_BYTES = 8
_FORGED_COMMITMENT = bytes(8)
"""Feeds the tags of positions whose tokens no client has sent."""


class Names:
    """From bytes to names, and back where a script may use the name."""

    def __init__(self) -> None:
        self.participants: dict[bytes, str] = {}
        self.requests: dict[RequestId, str] = {}
        self.tokens: dict[bytes, RequestId] = {}
        """Return tokens, and the request that each is for."""
        self.seen: set[bytes] = set()
        """Signed messages that the log has had in full."""
        self._tags: dict[RequestId, dict[Position, Tag]] = {}
        self._tag_names: dict[bytes, str] = {}
        self._octets: dict[bytes, str] = {}

    def add_request(self, request: RequestId) -> None:
        """Name a request after those before it; of one that has a name already, nothing."""
        if request not in self.requests:
            self.requests[request] = f"request-{len(self.requests)}"
            self.learn_tag(request, Position(0), root_tag(request))

    def learn_tag(self, request: RequestId, position: Position, tag: Tag) -> None:
        """The client says what the tag of its history is at a position."""
        history = self._tags.setdefault(request, {})
        if history.get(position) == tag:
            return
        name = f"H{position}" + ("" if self._is_first(request) else f"/{self.requests[request]}")
        while name in self._tag_names.values():
            name += "'"
        history[position] = tag
        self._tag_names[tag] = name

    def tag_at(self, request: RequestId, position: Position) -> Tag:
        """The tag of a request's history: what its client sent, or else one made up from there on."""
        history = self._tags.setdefault(request, {Position(0): root_tag(request)})
        at = max(known for known in history if known <= position)
        tag = history[at]
        for further in range(at + 1, position + 1):
            tag = next_tag(tag, _FORGED_COMMITMENT)
            self.learn_tag(request, Position(further), tag)
        return tag

    def participant(self, participant: ParticipantId) -> str:
        """A participant's name."""
        return self.participants.get(participant) or self.octets(participant)

    def request(self, request: RequestId) -> str:
        """A request's name."""
        return self.requests.get(request) or self.octets(request)

    def tag(self, tag: bytes) -> str:
        """H3 for the history's tag at position 3, else a name by order of appearance."""
        if tag not in self._tag_names:
            others = sum(name.startswith("other-") for name in self._tag_names.values())
            self._tag_names[tag] = f"other-{others + 1}"
        return self._tag_names[tag]

    def octets(self, data: bytes) -> str:
        """Short bytes, or bytes that are all the same, as they are; others by order of appearance."""
        if len(set(data)) == 1 and len(data) > 1:
            return f"{data[0]:02x}*{len(data)}"
        if len(data) <= _SHORT_BYTES:
            return data.hex() or "none"
        return self._octets.setdefault(data, f"bytes-{len(self._octets) + 1}({len(data)})")

    def readable(self, text: str) -> str:
        """A reason with the names of the participants whose ids are in it."""
        for participant, name in self.participants.items():
            text = text.replace(participant_text(ParticipantId(participant)), name)
            text = text.replace(participant_short(ParticipantId(participant)), name)
        return text

    def value(self, value: object) -> str:
        """A field of any type as a word."""
        match value:
            case Enum():
                return value.name
            case bytes():
                known = self.participants.get(value) or self.requests.get(RequestId(value))
                return known or self._tag_names.get(value) or self.octets(value)
            case memoryview():
                return self.octets(bytes(value))
            case tuple():
                return "/".join(map(self.value, value)) or "none"
            case str() if " " in value or not value:
                return f'"{value}"'
            case _:
                return str(value)

    def _is_first(self, request: RequestId) -> bool:
        return next(iter(self.requests), request) == request
