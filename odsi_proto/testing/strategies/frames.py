"""Every frame of a control stream."""

from hypothesis import strategies as st

from odsi_proto.testing.strategies.numbers import (
    handles,
    positions,
    request_ids,
    stage_indices,
    varints,
)
from odsi_proto.units import Micros
from odsi_proto.wire import frames as wire
from odsi_proto.wire.codepoints import FrameType
from odsi_proto.wire.identity import SIGNATURE_BYTES
from odsi_proto.wire.varint import VARINT_MAX

_AFTER_KNOWN = max(FrameType) + 1


def messages() -> st.SearchStrategy[bytes]:
    """What a frame carries on without looking inside."""
    return st.binary(max_size=80)


def reasons() -> st.SearchStrategy[str]:
    """Reasons that need no cutting: UTF-8 of at most 512 bytes."""
    return st.text(st.characters(exclude_categories=["Cs"]), max_size=wire.REASON_BYTES_MAX // 4)


def status_records() -> st.SearchStrategy[wire.StatusRecord]:
    """Where the time of one step went."""
    leaves = st.binary(max_size=wire.LEAF_BYTES_MAX)
    times = varints().map(Micros)
    return st.builds(
        wire.StatusRecord,
        stage=stage_indices(),
        lineage=varints(),
        position=positions(),
        count=varints(),
        remaining_us=times,
        transfer_us=times,
        queue_us=times,
        compute_us=times,
        coordination_us=times,
        output_bytes=varints(),
        flags=varints(),
        leaf=leaves,
        extension=leaves,
    )


def known_frames() -> st.SearchStrategy[wire.KnownFrame]:
    """One frame of any class in :data:`odsi_proto.wire.frames.FRAMES`."""
    return st.one_of(
        st.builds(wire.GoawayFrame, code=varints(), reason=reasons()),
        st.builds(wire.AbandonFrame, handle=handles(), code=varints(), reason=reasons()),
        st.builds(wire.CancelFrame, message=messages()),
        st.builds(
            wire.AttachFrame,
            request_id=request_ids(),
            return_token=st.binary(min_size=wire.RETURN_TOKEN_BYTES, max_size=wire.RETURN_TOKEN_BYTES),
        ),
        st.builds(wire.AttachedFrame, request_id=request_ids(), handle=handles()),
        st.builds(
            wire.RefuseFrame,
            handle=handles(),
            stage=stage_indices(),
            code=varints(),
            lineage=varints(),
            position=positions(),
            queue_us=varints().map(Micros),
            reason=reasons(),
        ),
        st.builds(
            wire.StatusFrame,
            handle=handles(),
            credit_steps=varints(),
            credit_bytes=varints(),
            records=st.lists(status_records(), max_size=3).map(tuple),
        ),
        st.builds(wire.OpenFrame, handle=handles(), stage=stage_indices(), message=messages()),
        st.builds(wire.CommitFrame, handle=handles(), stage=stage_indices(), message=messages()),
        st.builds(wire.HelloFrame, body=messages()),
        st.builds(wire.AuthFrame, signature=st.binary(min_size=SIGNATURE_BYTES, max_size=SIGNATURE_BYTES)),
    )


def unknown_frames(*, ignorable: bool | None = None) -> st.SearchStrategy[wire.UnknownFrame]:
    """Frames of types that version 1 does not define; odd ones may be ignored, even ones not."""
    pairs = varints((VARINT_MAX - _AFTER_KNOWN) // 2)
    odd = st.one_of(pairs.map(lambda n: 2 * n + 1 + _AFTER_KNOWN // 2 * 2), st.sampled_from(_ODD_LOW))
    even = pairs.map(lambda n: 2 * n + _AFTER_KNOWN + _AFTER_KNOWN % 2)
    types = {True: odd, False: even, None: odd | even}[ignorable]
    return st.builds(wire.UnknownFrame, type=types, body=messages())


_ODD_LOW = tuple(number for number in range(_AFTER_KNOWN) if number % 2 and number not in wire.FRAMES)


def frames() -> st.SearchStrategy[wire.Frame]:
    """Any frame, known or not."""
    return st.one_of(known_frames(), unknown_frames())
