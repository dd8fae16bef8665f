"""Hypothesis strategies and fixed values for every message of the wire."""

from hypothesis import strategies as st
from nacl.signing import SigningKey

from odsi_proto.units import Handle, LayerRange, Micros, ParticipantId, Position, RequestId, StageIndex, Tag
from odsi_proto.wire import frames
from odsi_proto.wire.identity import Delegation, SignedMessage, Signer
from odsi_proto.wire.messages import (
    EXTENSION_BYTES_MAX,
    LAYERS_MAX,
    LIST_ITEMS_MAX,
    Cancel,
    Commit,
    Deadline,
    Extension,
    Hello,
    Offer,
    Open,
    StagePlan,
)
from odsi_proto.wire.step import DURATION_US_MAX, POSITIONS_MAX, STEP_EXTENSION_BYTES_MAX, StepHeader
from odsi_proto.wire.varint import VARINT_MAX

COLD, HOT = SigningKey(b"c" * 32), SigningKey(b"h" * 32)
DELEGATION = Delegation.issue(
    COLD, hot_key=bytes(HOT.verify_key), epoch=3, not_before_s=1_000, not_after_s=2_000
)
SIGNER = Signer(hot_key=HOT, delegation=DELEGATION)

u64 = st.integers(0, 2**64 - 1)
varints = st.one_of(st.integers(0, 70), st.integers(0, 70_000), st.integers(0, VARINT_MAX))
durations = st.one_of(st.integers(0, 70_000), st.integers(0, DURATION_US_MAX)).map(Micros)
digests = st.binary(min_size=32, max_size=32)
participants = digests.map(ParticipantId)
request_ids = st.binary(min_size=16, max_size=16).map(RequestId)
stage_indices = st.integers(0, LIST_ITEMS_MAX - 1).map(StageIndex)
reasons = st.text(max_size=60)
numbers = st.lists(u64, max_size=5).map(tuple)
optional_digests = st.one_of(st.just(b""), digests)


@st.composite
def layer_ranges(draw: st.DrawFn) -> LayerRange:
    first = draw(st.integers(0, LAYERS_MAX - 1))
    return LayerRange(first, draw(st.integers(first + 1, LAYERS_MAX)))


@st.composite
def step_headers(draw: st.DrawFn) -> StepHeader:
    position = draw(st.one_of(st.integers(0, 300), st.integers(0, POSITIONS_MAX - 1)))
    return StepHeader(
        handle=Handle(draw(varints)),
        lineage=draw(varints),
        attempt=draw(varints),
        position=Position(position),
        count=draw(st.integers(1, min(300, POSITIONS_MAX - position))),
        remaining_us=draw(durations),
        owd_us=draw(durations),
        tag_before=Tag(draw(st.binary(min_size=8, max_size=8))),
        tag_after=Tag(draw(st.binary(min_size=8, max_size=8))),
        extension=draw(st.one_of(st.just(b""), st.binary(max_size=STEP_EXTENSION_BYTES_MAX))),
    )


extensions = st.lists(
    st.builds(Extension, type=u64, value=st.binary(max_size=EXTENSION_BYTES_MAX)), max_size=3
).map(tuple)
offers = st.lists(st.builds(Offer, layers=layer_ranges(), model_root=digests), max_size=3).map(tuple)
hellos = st.builds(
    Hello,
    versions=numbers,
    delegation=st.just(DELEGATION),
    nonce=digests,
    certificate_sha256=optional_digests,
    roles=numbers,
    codecs=numbers,
    profiles=numbers,
    hash_suites=numbers,
    settings=st.lists(st.tuples(u64, u64), max_size=4).map(tuple),
    offers=offers,
    extensions=extensions,
)
stage_plans = st.builds(
    StagePlan,
    participant=participants,
    standbys=st.lists(participants, max_size=2).map(tuple),
    layers=layer_ranges(),
    budget_us=u64.map(Micros),
    remaining_min_us=u64.map(Micros),
    remaining_max_us=u64.map(Micros),
)


@st.composite
def opens(draw: st.DrawFn) -> Open:
    stages = tuple(draw(st.lists(stage_plans, min_size=1, max_size=4)))
    hops = len(stages) + 1
    return Open(
        request_id=draw(request_ids),
        lineage=draw(varints),
        model_root=draw(digests),
        profile=draw(u64),
        hash_suite=draw(u64),
        width=draw(st.integers(1, 1 << 20)),
        stages=stages,
        codecs=tuple(draw(st.lists(u64, min_size=hops, max_size=hops))),
        deadlines=tuple(draw(st.lists(st.builds(Deadline, kind=u64, budget_us=u64.map(Micros)), max_size=3))),
        late_action=draw(u64),
        price_cap=draw(u64),
        positions_max=draw(st.integers(1, 1 << 30)),
        rows_returned_max=draw(st.integers(1, 2**64 - 1)),
        return_token_sha256=draw(digests),
        expiry_s=draw(u64),
        extensions=draw(extensions),
    )


commits = st.builds(
    Commit,
    open_digest=digests,
    request_id=request_ids,
    lineage=varints,
    stage=stage_indices,
    layers=layer_ranges(),
    position_first=u64.map(Position),
    position_end=u64.map(Position),
    predecessor=participants,
    model_root=digests,
    profile=u64,
    codec_in=u64,
    codec_out=u64,
    budget_us=u64.map(Micros),
    tolerance_us=u64.map(Micros),
    price=u64,
    checkpoint_steps=u64,
    checkpoint_us=u64.map(Micros),
    retention_window=u64,
    expiry_s=u64,
    previous_commit=optional_digests,
    extensions=extensions,
)
cancels = st.builds(Cancel, request_id=request_ids, lineage=varints, code=u64)
bodies = st.one_of(hellos, opens(), commits, cancels)

handles = varints.map(Handle)
leaves = st.binary(max_size=frames.LEAF_BYTES_MAX)
status_records = st.builds(
    frames.StatusRecord,
    stage=stage_indices,
    lineage=varints,
    position=varints.map(Position),
    count=varints,
    remaining_us=varints.map(Micros),
    transfer_us=varints.map(Micros),
    queue_us=varints.map(Micros),
    compute_us=varints.map(Micros),
    coordination_us=varints.map(Micros),
    output_bytes=varints,
    flags=varints,
    leaf=leaves,
    extension=leaves,
)
messages = st.binary(max_size=80)
known_frames = st.one_of(
    st.builds(frames.HelloFrame, body=messages),
    st.builds(frames.AuthFrame, signature=st.binary(min_size=64, max_size=64)),
    st.builds(frames.OpenFrame, handle=handles, stage=stage_indices, message=messages),
    st.builds(frames.CommitFrame, handle=handles, stage=stage_indices, message=messages),
    st.builds(frames.AttachFrame, request_id=request_ids, return_token=st.binary(min_size=16, max_size=16)),
    st.builds(frames.AttachedFrame, request_id=request_ids, handle=handles),
    st.builds(
        frames.RefuseFrame,
        handle=handles,
        stage=stage_indices,
        code=varints,
        lineage=varints,
        position=varints.map(Position),
        queue_us=varints.map(Micros),
        reason=reasons,
    ),
    st.builds(
        frames.StatusFrame,
        handle=handles,
        credit_steps=varints,
        credit_bytes=varints,
        records=st.lists(status_records, max_size=4).map(tuple),
    ),
    st.builds(frames.CancelFrame, message=messages),
    st.builds(frames.GoawayFrame, code=varints, reason=reasons),
    st.builds(frames.AbandonFrame, handle=handles, code=varints, reason=reasons),
)
unknown_frames = st.builds(
    frames.UnknownFrame, type=varints.filter(lambda n: n not in frames.FRAMES), body=messages
)
any_frames = st.one_of(known_frames, unknown_frames)


def signed(domain: str, body: bytes) -> SignedMessage:
    """A statement of the fixed signer."""
    return SignedMessage.sign(SIGNER, domain, body)
