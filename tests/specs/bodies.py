"""One valid value of every CBOR array of the specification, and how the code reads it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from nacl.signing import SigningKey

from odsi_proto.units import LayerRange, Micros, ParticipantId, Position, RequestId, StageIndex
from odsi_proto.wire import cbor
from odsi_proto.wire.identity import Delegation, SignedMessage, Signer, transcript_digest
from odsi_proto.wire.messages import Cancel, Commit, Deadline, Extension, Hello, Offer, Open, StagePlan

COLD, HOT = SigningKey(b"c" * 32), SigningKey(b"h" * 32)
DELEGATION = Delegation.issue(
    COLD, hot_key=bytes(HOT.verify_key), epoch=3, not_before_s=1_000, not_after_s=2_000, revocation_sequence=4
)
SIGNER = Signer(hot_key=HOT, delegation=DELEGATION)
EXTENSION = Extension(type=7, value=b"value")
HELLO = Hello(
    versions=(1, 2),
    delegation=DELEGATION,
    nonce=b"n" * 32,
    certificate_sha256=b"c" * 32,
    roles=(1, 3),
    codecs=(1, 2),
    profiles=(1, 9),
    hash_suites=(1, 8),
    settings=((2, 512), (4, 1 << 20)),
    offers=(Offer(layers=LayerRange(3, 9), model_root=b"m" * 32),),
    extensions=(EXTENSION,),
)
PLAN = StagePlan(
    participant=ParticipantId(b"p" * 32),
    standbys=(ParticipantId(b"s" * 32),),
    layers=LayerRange(0, 10),
    budget_us=Micros(11),
    remaining_min_us=Micros(12),
    remaining_max_us=Micros(13),
)
OPEN = Open(
    request_id=RequestId(b"r" * 16),
    lineage=1,
    model_root=b"m" * 32,
    profile=2,
    hash_suite=3,
    width=576,
    stages=(PLAN,),
    codecs=(1, 2),
    deadlines=(Deadline(kind=1, budget_us=Micros(14)),),
    late_action=4,
    price_cap=5,
    positions_max=6,
    rows_returned_max=7,
    return_token_sha256=b"t" * 32,
    expiry_s=8,
    extensions=(EXTENSION,),
)
COMMIT = Commit(
    open_digest=b"o" * 32,
    request_id=RequestId(b"r" * 16),
    lineage=1,
    stage=StageIndex(2),
    layers=LayerRange(0, 10),
    position_first=Position(3),
    position_end=Position(4),
    predecessor=ParticipantId(b"p" * 32),
    model_root=b"m" * 32,
    profile=5,
    codec_in=6,
    codec_out=7,
    budget_us=Micros(8),
    tolerance_us=Micros(9),
    price=10,
    checkpoint_steps=11,
    checkpoint_us=Micros(12),
    retention_window=13,
    expiry_s=14,
    previous_commit=b"q" * 32,
    extensions=(EXTENSION,),
)
CANCEL = Cancel(request_id=RequestId(b"r" * 16), lineage=1, code=2)
SIGNED = SignedMessage.sign(SIGNER, "cancel", CANCEL.encode())


@dataclass(frozen=True, slots=True)
class Body:
    """One array: its value in the code, its items as they travel, and how to read other items."""

    value: Any
    items: list[Any]
    read: Callable[[list[Any]], object]
    constants: tuple[str, ...] = ()
    """Fields of the table that the code's value has not."""


def items_of(raw: bytes) -> list[Any]:
    """The items of an encoded array, arrays as lists."""
    return [_listed(item) for item in cbor.decode(raw)]  # type: ignore[union-attr]


def signed_again(items: list[Any]) -> object:
    """A delegation of these items with a signature by the participant's key."""
    body = cbor.encode(items)
    epoch = items[4] if len(items) > 4 and isinstance(items[4], int) else 0
    digest = transcript_digest("delegation", DELEGATION.participant, epoch, body)
    return Delegation.decode(cbor.encode([body, bytes(COLD.sign(digest).signature)]))


def _listed(item: Any) -> Any:
    return [_listed(inner) for inner in item] if isinstance(item, tuple) else item


def _inside(outer: list[Any], index: int, decode: Callable[[bytes], object]) -> Callable[[list[Any]], object]:
    """Reads items as the only member of list ``index`` of ``outer``."""

    def read(items: list[Any]) -> object:
        changed = list(outer)
        changed[index] = [items]
        return decode(cbor.encode(changed))

    return read


_HELLO, _OPEN, _COMMIT = items_of(HELLO.encode()), items_of(OPEN.encode()), items_of(COMMIT.encode())
_DELEGATION = items_of(DELEGATION.encode())

BODIES: dict[str, Body] = {
    "DelegationOuter": Body(None, _DELEGATION, lambda i: Delegation.decode(cbor.encode(i))),
    "Delegation": Body(DELEGATION, items_of(_DELEGATION[0]), signed_again, ("format",)),
    "SignedMessage": Body(
        None, items_of(SIGNED.encode()), lambda i: SignedMessage.decode("cancel", cbor.encode(i))
    ),
    "Hello": Body(HELLO, _HELLO, lambda i: Hello.decode(cbor.encode(i))),
    "Setting": Body(None, _HELLO[8][0], _inside(_HELLO, 8, Hello.decode)),
    "Offer": Body(HELLO.offers[0], _HELLO[9][0], _inside(_HELLO, 9, Hello.decode)),
    "Extension": Body(EXTENSION, _HELLO[10][0], _inside(_HELLO, 10, Hello.decode)),
    "Open": Body(OPEN, _OPEN, lambda i: Open.decode(cbor.encode(i)), ("version",)),
    "StagePlan": Body(PLAN, _OPEN[7][0], _inside(_OPEN, 7, Open.decode)),
    "Deadline": Body(OPEN.deadlines[0], _OPEN[9][0], _inside(_OPEN, 9, Open.decode)),
    "Commit": Body(COMMIT, _COMMIT, lambda i: Commit.decode(cbor.encode(i)), ("version",)),
    "Cancel": Body(CANCEL, items_of(CANCEL.encode()), lambda i: Cancel.decode(cbor.encode(i)), ("version",)),
}
