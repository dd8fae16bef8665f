"""Coherence tags, and the sizes of activation rows."""

import hmac
from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from odsi_proto.units import Position, RequestId, Tag
from odsi_proto.wire.tag import next_tag, root_tag, tag_after, token_commitment
from odsi_proto.wire.tensor import ActivationCodec, ActivationLayout

REQUEST = RequestId(bytes(range(16)))
SECRET = bytes(range(32))


def test_the_root_is_the_start_of_a_hash_over_a_domain_and_the_request() -> None:
    assert root_tag(REQUEST) == sha256(b"odsi/1 tag root" + REQUEST).digest()[:8]


def test_a_commitment_is_an_hmac_over_position_and_token() -> None:
    expected = hmac.new(SECRET, bytes(7) + b"\x05" + bytes(6) + b"\x01\x00", "sha256").digest()
    assert token_commitment(SECRET, Position(5), 256) == expected


def test_a_tag_is_the_start_of_a_hash_over_the_tag_before_and_the_commitment() -> None:
    commitment = token_commitment(SECRET, Position(0), 1)
    assert next_tag(Tag(b"12345678"), commitment) == sha256(b"12345678" + commitment).digest()[:8]


@given(st.lists(st.integers(0, 2**32), max_size=12), st.integers(0, 12))
def test_tags_do_not_depend_on_how_tokens_are_cut_into_steps(tokens: list[int], cut: int) -> None:
    whole = tag_after(root_tag(REQUEST), SECRET, Position(0), tokens)
    first = tag_after(root_tag(REQUEST), SECRET, Position(0), tokens[:cut])
    assert tag_after(first, SECRET, Position(min(cut, len(tokens))), tokens[cut:]) == whole


def test_tags_differ_with_position_token_and_secret() -> None:
    root = root_tag(REQUEST)
    tags = {
        tag_after(root, SECRET, Position(0), [1]),
        tag_after(root, SECRET, Position(1), [1]),
        tag_after(root, SECRET, Position(0), [2]),
        tag_after(root, SECRET[::-1], Position(0), [1]),
        root,
    }
    assert len(tags) == 5


@pytest.mark.parametrize(("codec", "row_bytes"), [(ActivationCodec.F32, 2304), (ActivationCodec.F16, 1154)])
def test_a_payload_is_count_times_the_row_of_its_codec(codec: ActivationCodec, row_bytes: int) -> None:
    layout = ActivationLayout(codec=codec, width=576)
    assert (layout.row_bytes, layout.payload_bytes(3)) == (row_bytes, 3 * row_bytes)
