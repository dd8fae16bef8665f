"""The messages that vectors are made of."""

from typing import Any

from odsi_proto.testing.vector_machines import signer_of
from odsi_proto.units import LayerRange, Micros, ParticipantId, Position, RequestId, StageIndex
from odsi_proto.wire.messages import Cancel, Commit, Deadline, Extension, Hello, Offer, Open, StagePlan


def identity(number: int) -> dict[str, Any]:
    """Two seeds and a validity."""
    return {
        "cold_seed": bytes([number] * 32).hex(),
        "hot_seed": bytes([128 + number] * 32).hex(),
        "epoch": 1,
        "not_before_s": 0,
        "not_after_s": 1 << 40,
    }


IDENTITY, OTHER_IDENTITY = identity(1), identity(2)
ROOT = bytes(range(32))
REQUEST = RequestId(bytes(range(16)))
EXTENSION = Extension(type=0x1B, value=b"grease")


def plan(number: int, layers: LayerRange, *, standbys: tuple[int, ...] = ()) -> StagePlan:
    """One stage of a path."""
    return StagePlan(
        participant=signer_of(identity(number)).participant,
        standbys=tuple(signer_of(identity(standby)).participant for standby in standbys),
        layers=layers,
        budget_us=Micros(20_000),
        remaining_min_us=Micros(0),
        remaining_max_us=Micros(1_000_000),
    )


HELLO = Hello(
    versions=(1,),
    delegation=signer_of(IDENTITY).delegation,
    nonce=b"\x11" * 32,
    certificate_sha256=b"",
    roles=(1,),
    codecs=(1, 2),
    profiles=(1,),
    hash_suites=(1,),
    settings=((2, 512), (4, 16 << 20), (6, 64)),
    offers=(),
)
OTHER_HELLO = Hello(
    versions=(1, 2),
    delegation=signer_of(OTHER_IDENTITY).delegation,
    nonce=b"\x22" * 32,
    certificate_sha256=b"\x33" * 32,
    roles=(2, 3),
    codecs=(1,),
    profiles=(1,),
    hash_suites=(1,),
    settings=((2, 128), (0x1B, 2**64 - 1)),
    offers=(Offer(layers=LayerRange(0, 10), model_root=ROOT),),
    extensions=(EXTENSION,),
)
OPEN = Open(
    request_id=REQUEST,
    lineage=0,
    model_root=ROOT,
    profile=1,
    hash_suite=1,
    width=576,
    stages=(plan(2, LayerRange(0, 10)), plan(3, LayerRange(10, 20), standbys=(4, 5))),
    codecs=(2, 2, 1),
    deadlines=(
        Deadline(kind=1, budget_us=Micros(2_000_000)),
        Deadline(kind=2, budget_us=Micros(200_000)),
    ),
    late_action=1,
    price_cap=1_000,
    positions_max=2_048,
    rows_returned_max=1,
    return_token_sha256=b"\x44" * 32,
    expiry_s=1_800_000_000,
    extensions=(EXTENSION,),
)
COMMIT = Commit(
    open_digest=b"\x55" * 32,
    request_id=REQUEST,
    lineage=0,
    stage=StageIndex(1),
    layers=LayerRange(10, 20),
    position_first=Position(0),
    position_end=Position(2_048),
    predecessor=ParticipantId(b"\x66" * 32),
    model_root=ROOT,
    profile=1,
    codec_in=2,
    codec_out=1,
    budget_us=Micros(20_000),
    tolerance_us=Micros(0),
    price=3,
    checkpoint_steps=0,
    checkpoint_us=Micros(0),
    retention_window=8,
    expiry_s=1_800_000_000,
    previous_commit=b"",
)
CANCEL = Cancel(request_id=REQUEST, lineage=0, code=0x13)
