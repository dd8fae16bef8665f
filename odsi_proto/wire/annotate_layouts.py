"""The layouts of frames, headers and bodies as data, for :mod:`odsi_proto.wire.annotate`."""

from dataclasses import dataclass
from enum import IntEnum
from typing import Literal, TypeAlias

from odsi_proto.wire.codepoints import (
    DeadlineKind,
    ErrorCode,
    FrameType,
    HashSuite,
    LateAction,
    Role,
    Setting,
)
from odsi_proto.wire.frames import RETURN_TOKEN_BYTES
from odsi_proto.wire.identity import SIGNATURE_BYTES
from odsi_proto.wire.messages import REQUEST_ID_BYTES
from odsi_proto.wire.tag import TAG_BYTES
from odsi_proto.wire.tensor import ActivationCodec, NumericProfile

Form: TypeAlias = str | int
"""``varint``, ``code`` (of an error), ``text`` and ``short`` (length first), ``rest`` (up to the end),
``records``, a number of bytes, or the name of CBOR in :data:`BODIES` up to the end."""

Layout: TypeAlias = tuple[tuple[str, Form], ...]
Names: TypeAlias = type[IntEnum] | Literal["type"] | None
"""What an integer's values are called; ``type`` where only odd and even mean something."""


@dataclass(frozen=True, slots=True)
class Item:
    """A CBOR item: what it is called and what is in it."""

    name: str
    items: tuple["Item", ...] = ()
    """The items of an array, each with its own meaning."""
    each: "Item | None" = None
    """The meaning of every item of a list."""
    within: "Item | None" = None
    """The CBOR inside a byte string."""
    names: Names = None
    is_body: bool = False
    """A byte string with the body that the frame, or the command line, names."""

    def item(self, index: int) -> "Item":
        """The item at ``index`` of an array."""
        if self.each is not None:
            return self.each
        return self.items[index] if index < len(self.items) else Item(f"item {index}")


def _list(name: str, each: str, names: Names = None) -> Item:
    return Item(name, each=Item(each, names=names))


def _numbers(*names: str) -> tuple[Item, ...]:
    return tuple(Item(name) for name in names)


_LAYERS = _numbers("first layer", "layers end")
_EXTENSIONS = Item("extensions", each=Item("extension", (Item("type", names="type"), Item("value"))))
_DELEGATION_BODY = Item(
    "delegation body",
    _numbers(
        "format",
        "participant",
        "hot key",
        "scope",
        "epoch",
        "not before (s)",
        "not after (s)",
        "revocation sequence",
    ),
)
_DELEGATION = Item("delegation", (Item("body", within=_DELEGATION_BODY), Item("signature")))
_STAGE = Item(
    "stage",
    (
        Item("participant"),
        _list("standbys", "standby"),
        *_LAYERS,
        *_numbers("budget_us", "remaining_min_us", "remaining_max_us"),
    ),
)

BODIES: dict[str, Item] = {
    "delegation": _DELEGATION,
    "signed": Item(
        "signed message",
        (Item("body", is_body=True), Item("delegation", within=_DELEGATION), Item("signature")),
    ),
    "hello": Item(
        "HELLO",
        (
            _list("versions", "version"),
            Item("delegation", within=_DELEGATION),
            *_numbers("nonce", "certificate sha256"),
            _list("roles", "role", Role),
            _list("codecs", "codec", ActivationCodec),
            _list("profiles", "profile", NumericProfile),
            _list("hash suites", "hash suite", HashSuite),
            Item("settings", each=Item("setting", (Item("setting", names=Setting), Item("value")))),
            Item("offers", each=Item("offer", (*_LAYERS, Item("model root")))),
            _EXTENSIONS,
        ),
    ),
    "open": Item(
        "OPEN",
        (
            *_numbers("version", "request id", "lineage", "model root"),
            Item("profile", names=NumericProfile),
            Item("hash suite", names=HashSuite),
            Item("width"),
            Item("stages", each=_STAGE),
            _list("codecs", "codec", ActivationCodec),
            Item("deadlines", each=Item("deadline", (Item("kind", names=DeadlineKind), Item("budget_us")))),
            Item("late action", names=LateAction),
            *_numbers("price cap", "positions max", "rows returned max", "return token sha256", "expiry (s)"),
            _EXTENSIONS,
        ),
    ),
    "commit": Item(
        "COMMIT",
        (
            *_numbers("version", "open digest", "request id", "lineage", "stage"),
            *_LAYERS,
            *_numbers("first position", "positions end", "predecessor", "model root"),
            Item("profile", names=NumericProfile),
            Item("codec in", names=ActivationCodec),
            Item("codec out", names=ActivationCodec),
            *_numbers("budget_us", "tolerance_us", "price", "checkpoint steps", "checkpoint_us"),
            *_numbers("retention window", "expiry (s)", "previous commit"),
            _EXTENSIONS,
        ),
    ),
    "cancel": Item("CANCEL", (*_numbers("version", "request id", "lineage"), Item("code", names=ErrorCode))),
}

STATUS_RECORD: Layout = (
    ("stage", "varint"),
    ("lineage", "varint"),
    ("position", "varint"),
    ("count", "varint"),
    ("remaining_us", "varint"),
    ("transfer_us", "varint"),
    ("queue_us", "varint"),
    ("compute_us", "varint"),
    ("coordination_us", "varint"),
    ("output_bytes", "varint"),
    ("flags", "varint"),
    ("leaf", "short"),
    ("extension", "short"),
)
FRAMES: dict[int, Layout] = {
    FrameType.HELLO: (("body", "hello"),),
    FrameType.AUTH: (("signature", SIGNATURE_BYTES),),
    FrameType.OPEN: (("handle", "varint"), ("stage", "varint"), ("message", "signed open")),
    FrameType.COMMIT: (("handle", "varint"), ("stage", "varint"), ("message", "signed commit")),
    FrameType.ATTACH: (("request id", REQUEST_ID_BYTES), ("return token", RETURN_TOKEN_BYTES)),
    FrameType.ATTACHED: (("request id", REQUEST_ID_BYTES), ("handle", "varint")),
    FrameType.REFUSE: (
        ("handle", "varint"),
        ("stage", "varint"),
        ("code", "code"),
        ("lineage", "varint"),
        ("position", "varint"),
        ("queue_us", "varint"),
        ("reason", "text"),
    ),
    FrameType.STATUS: (
        ("handle", "varint"),
        ("credit_steps", "varint"),
        ("credit_bytes", "varint"),
        ("records", "records"),
    ),
    FrameType.CANCEL: (("message", "signed cancel"),),
    FrameType.GOAWAY: (("code", "code"), ("reason", "text")),
    FrameType.ABANDON: (("handle", "varint"), ("code", "code"), ("reason", "text")),
}
STEP: Layout = (
    ("handle", "varint"),
    ("lineage", "varint"),
    ("attempt", "varint"),
    ("position", "varint"),
    ("count", "varint"),
    ("remaining_us", "varint"),
    ("owd_us", "varint"),
    ("tag before", TAG_BYTES),
    ("tag after", TAG_BYTES),
    ("extension", "short"),
)
