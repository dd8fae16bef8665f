"""Numbers, names, step headers and row layouts, each within the bounds of the specification."""

from itertools import pairwise

from hypothesis import strategies as st

from odsi_proto.units import Handle, LayerRange, Micros, ParticipantId, Position, RequestId, StageIndex, Tag
from odsi_proto.wire.identity import KEY_BYTES
from odsi_proto.wire.merkle import DIGEST_BYTES
from odsi_proto.wire.messages import LAYERS_MAX, LIST_ITEMS_MAX, REQUEST_ID_BYTES
from odsi_proto.wire.step import DURATION_US_MAX, POSITIONS_MAX, STEP_EXTENSION_BYTES_MAX, StepHeader
from odsi_proto.wire.tag import TAG_BYTES
from odsi_proto.wire.tensor import ActivationCodec, ActivationLayout
from odsi_proto.wire.varint import VARINT_MAX

_VARINT_ENDS = (0, 1 << 6, 1 << 14, 1 << 30, VARINT_MAX + 1)
"""Where the length of a varint changes."""


def varints(largest: int = VARINT_MAX) -> st.SearchStrategy[int]:
    """Integers from 0 to ``largest``, each encoded length as likely as the others."""
    ranges = [
        st.integers(first, min(end - 1, largest)) for first, end in pairwise(_VARINT_ENDS) if first <= largest
    ]
    return st.one_of(ranges)


def u64s() -> st.SearchStrategy[int]:
    """What a CBOR head holds, lengths of heads alike."""
    return st.one_of(varints(), st.integers(VARINT_MAX + 1, 2**64 - 1))


def durations() -> st.SearchStrategy[Micros]:
    """Durations that a step header holds, in microseconds."""
    return varints(DURATION_US_MAX).map(Micros)


def digests() -> st.SearchStrategy[bytes]:
    """32 bytes."""
    return st.binary(min_size=DIGEST_BYTES, max_size=DIGEST_BYTES)


def optional_digests() -> st.SearchStrategy[bytes]:
    """A digest, or nothing."""
    return st.just(b"") | digests()


def participants() -> st.SearchStrategy[ParticipantId]:
    """Names of participants; nobody need hold the key."""
    return st.binary(min_size=KEY_BYTES, max_size=KEY_BYTES).map(ParticipantId)


def request_ids() -> st.SearchStrategy[RequestId]:
    """A client's names for requests."""
    return st.binary(min_size=REQUEST_ID_BYTES, max_size=REQUEST_ID_BYTES).map(RequestId)


def handles() -> st.SearchStrategy[Handle]:
    """Short names of requests on one connection."""
    return varints().map(Handle)


def positions() -> st.SearchStrategy[Position]:
    """Positions where a frame bounds them by its varint only."""
    return varints().map(Position)


def stage_indices() -> st.SearchStrategy[StageIndex]:
    """Places on a path."""
    return st.integers(0, LIST_ITEMS_MAX - 1).map(StageIndex)


def tags() -> st.SearchStrategy[Tag]:
    """Coherence tags."""
    return st.binary(min_size=TAG_BYTES, max_size=TAG_BYTES).map(Tag)


@st.composite
def layer_ranges(draw: st.DrawFn) -> LayerRange:
    """Layers of a model."""
    first = draw(st.integers(0, LAYERS_MAX - 1))
    return LayerRange(first, draw(st.integers(first + 1, LAYERS_MAX)))


def layouts(width_max: int = 1 << 20) -> st.SearchStrategy[ActivationLayout]:
    """How rows lie: every codec, rows of 1 to ``width_max`` values."""
    return st.builds(
        ActivationLayout, codec=st.sampled_from(ActivationCodec), width=st.integers(1, width_max)
    )


@st.composite
def step_headers(draw: st.DrawFn) -> StepHeader:
    """Every step header that can be written (STEP-016 and the bounds of part 03 section 5)."""
    position = draw(varints(POSITIONS_MAX - 1))
    return StepHeader(
        handle=draw(handles()),
        lineage=draw(varints()),
        attempt=draw(varints()),
        position=Position(position),
        count=1 + draw(varints(POSITIONS_MAX - position - 1)),
        remaining_us=draw(durations()),
        owd_us=draw(durations()),
        tag_before=draw(tags()),
        tag_after=draw(tags()),
        extension=draw(st.just(b"") | st.binary(max_size=STEP_EXTENSION_BYTES_MAX)),
    )
