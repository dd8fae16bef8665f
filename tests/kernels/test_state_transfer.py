"""State on its way from one engine to another: the same bytes whatever computed them, and no tampering."""

import dataclasses
from collections.abc import Callable
from hashlib import sha256
from struct import pack

import pytest
import torch
from kernels.tiny_layers import (
    LAYERS,
    Shape,
    make_engine,
    needs_native,
    random_rows,
    relative_error,
    run_alone,
)

from odsi_proto.errors import LocalProtocolError, Malformed
from odsi_proto.kernels.cache import StateBlock
from odsi_proto.kernels.engine import StageEngine
from odsi_proto.kernels.select import BackendKind
from odsi_proto.wire.tensor import NumericProfile

pytestmark = needs_native

A, B = b"a", b"b"
SHAPE = Shape()
ROWS = random_rows(SHAPE, 64)
HELD = 37
FLOAT32 = NumericProfile.FLOAT32


def filled(profile: NumericProfile, kind: BackendKind = BackendKind.NATIVE) -> StageEngine:
    """An engine whose request A holds ``HELD`` positions."""
    engine = make_engine(SHAPE, profile, kind)
    engine.open(A, 64)
    engine.run(A, 0, ROWS[:HELD])
    return engine


def receive(
    blocks: list[StateBlock], profile: NumericProfile, kind: BackendKind = BackendKind.NATIVE
) -> StageEngine:
    """Another engine, whose request A took the blocks in."""
    engine = make_engine(SHAPE, profile, kind)
    engine.open(b"before", 20)  # so that blocks lie elsewhere
    engine.open(A, 64)
    for block in blocks:
        engine.import_state(A, block)
    return engine


def digest_of(first: int, count: int, data: bytes) -> bytes:
    """As :class:`StateBlock` defines it."""
    return sha256(pack("<5I", first, count, LAYERS, SHAPE.kv_heads, SHAPE.head_size) + data).digest()


def redone(block: StateBlock, **changes: int | bytes) -> StateBlock:
    """A changed block whose digest is right again."""
    changed = dataclasses.replace(block, **changes)
    return dataclasses.replace(changed, digest=digest_of(changed.first, changed.count, changed.data))


@pytest.mark.parametrize("profile", NumericProfile)
def test_a_request_goes_on_elsewhere_bit_for_bit(profile: NumericProfile) -> None:
    engine = filled(profile)
    other = receive(list(engine.export_state(A, 0, HELD)), profile)
    assert other.positions_held(A) == HELD
    assert torch.equal(other.run(A, HELD, ROWS[HELD:]), engine.run(A, HELD, ROWS[HELD:]))


@pytest.mark.parametrize("profile", NumericProfile)
@pytest.mark.parametrize("way", [("TORCH", "NATIVE"), ("NATIVE", "TORCH")], ids=" to ".join)
def test_state_has_the_same_bytes_after_another_backend(
    profile: NumericProfile, way: tuple[str, str]
) -> None:
    made, passed = (BackendKind[name] for name in way)
    blocks = list(filled(profile, made).export_state(A, 0, HELD))
    other = receive(blocks, profile, passed)
    assert list(other.export_state(A, 0, HELD)) == blocks
    back = receive(list(other.export_state(A, 0, HELD)), profile, made)
    assert list(back.export_state(A, 0, HELD)) == blocks


@pytest.mark.parametrize("way", [("TORCH", "NATIVE"), ("NATIVE", "TORCH")], ids=" to ".join)
def test_another_backend_goes_on_from_the_state(way: tuple[str, str]) -> None:
    made, passed = (BackendKind[name] for name in way)
    other = receive(list(filled(FLOAT32, made).export_state(A, 0, HELD)), FLOAT32, passed)
    expected = run_alone(make_engine(SHAPE, kind=BackendKind.REFERENCE), ROWS)[HELD:]
    assert relative_error(other.run(A, HELD, ROWS[HELD:]), expected) <= 1e-4


def test_a_block_is_positions_of_layers_of_keys_and_values_of_heads() -> None:
    # One layer's first key is what its key matrix makes of the first normalised row: told by another engine.
    engine, reference = filled(FLOAT32), make_engine(SHAPE, kind=BackendKind.REFERENCE)
    reference.open(A, 64)
    reference.run(A, 0, ROWS[:HELD])
    state, cache = reference._requests[A], reference._cache
    expected = torch.stack(
        [
            torch.stack([cache.keys(state, layer, HELD), cache.values(state, layer, HELD)])
            for layer in range(LAYERS)
        ]
    )  # [layers, 2, kv_heads, positions, head_size]
    data = b"".join(block.data for block in engine.export_state(A, 0, HELD))
    found = torch.frombuffer(bytearray(data), dtype=torch.float32)
    found = found.view(HELD, LAYERS, 2, SHAPE.kv_heads, SHAPE.head_size)
    torch.testing.assert_close(found.double(), expected.permute(3, 0, 1, 2, 4), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("first", "end", "counts"),
    [(0, HELD, [16, 16, 5]), (16, 32, [16]), (5, 6, [1]), (15, 33, [1, 16, 1]), (20, 20, [])],
)
def test_a_range_is_exported_in_blocks_that_end_where_the_cache_has_edges(
    first: int, end: int, counts: list[int]
) -> None:
    blocks = list(filled(FLOAT32).export_state(A, first, end))
    assert [block.count for block in blocks] == counts
    assert [block.first for block in blocks] == [first + sum(counts[:index]) for index in range(len(counts))]


def test_a_digest_covers_where_the_block_belongs_and_its_data() -> None:
    for block in filled(FLOAT32).export_state(A, 0, HELD):
        assert block.digest == digest_of(block.first, block.count, block.data)


@pytest.mark.parametrize(("first", "end"), [(0, HELD + 1), (HELD, HELD + 1), (-1, 3)])
def test_positions_that_are_not_held_are_not_exported(first: int, end: int) -> None:
    with pytest.raises(LocalProtocolError, match="the request holds 37"):
        list(filled(FLOAT32).export_state(A, first, end))


TAMPERED: dict[str, tuple[Callable[[StateBlock], StateBlock], str]] = {
    "a flipped bit": (
        lambda block: dataclasses.replace(block, data=bytes([block.data[0] ^ 1]) + block.data[1:]),
        "another digest",
    ),
    "a flipped bit at the end": (
        lambda block: dataclasses.replace(block, data=block.data[:-1] + bytes([block.data[-1] ^ 0x80])),
        "another digest",
    ),
    "a flipped digest": (lambda block: dataclasses.replace(block, digest=bytes(32)), "another digest"),
    "the digest of another place": (
        lambda block: dataclasses.replace(block, digest=digest_of(16, 16, block.data)),
        "another digest",
    ),
    "a later place": (lambda block: redone(block, first=33), "from position 33, the request holds 32"),
    "an earlier place": (lambda block: redone(block, first=31), "from position 31, the request holds 32"),
    "more positions than data": (lambda block: redone(block, count=6), "are not 6 positions"),
    "fewer positions than data": (lambda block: redone(block, count=4), "are not 4 positions"),
    "no positions": (lambda block: redone(block, count=0, data=b""), "0 positions of state"),
    "positions below none": (lambda block: dataclasses.replace(block, count=-1), "-1 positions of state"),
    "more than a block": (lambda block: redone(block, count=17), "17 positions of state"),
    "a byte too many": (lambda block: redone(block, data=block.data + b"\0"), "bytes are not 5 positions"),
    "a byte too few": (lambda block: redone(block, data=block.data[:-1]), "bytes are not 5 positions"),
    "a value that is no number": (
        lambda block: redone(block, data=pack("<f", float("nan")) + block.data[4:]),
        "not finite",
    ),
    "a value without end": (
        lambda block: redone(block, data=block.data[:-4] + pack("<f", float("-inf"))),
        "not finite",
    ),
}


@pytest.mark.parametrize(("tamper", "message"), TAMPERED.values(), ids=TAMPERED.keys())
def test_a_block_that_was_tampered_with_is_malformed_and_changes_nothing(
    tamper: Callable[[StateBlock], StateBlock], message: str
) -> None:
    *before, last = filled(FLOAT32).export_state(A, 0, HELD)
    other = receive(before, FLOAT32)
    with pytest.raises(Malformed, match=message):
        other.import_state(A, tamper(last))
    assert list(other.export_state(A, 0, 32)) == before
    other.import_state(A, last)
    assert torch.equal(other.run(A, HELD, ROWS[HELD:]), run_alone(make_engine(SHAPE), ROWS)[HELD:])


def test_state_fills_a_reservation_and_never_passes_it() -> None:
    blocks = list(filled(FLOAT32).export_state(A, 0, HELD))
    other = make_engine(SHAPE)
    other.open(A, HELD)
    other.open(B, HELD - 1)
    for name in (A, B):
        other.import_state(name, blocks[0])
        other.import_state(name, blocks[1])
    other.import_state(A, blocks[2])
    with pytest.raises(Malformed, match="5 positions of state from 32, of 36"):
        other.import_state(B, blocks[2])
    assert other.positions_held(B) == 32


def test_state_of_another_number_format_is_malformed() -> None:
    block = next(filled(NumericProfile.FAST).export_state(A, 0, 16))
    other = make_engine(SHAPE)
    other.open(A, 64)
    with pytest.raises(Malformed, match="bytes are not 16 positions of state"):
        other.import_state(A, block)


def test_a_request_that_closed_during_its_export_is_refused() -> None:
    # The state had no blocks left and still said that it held positions: an IndexError.
    engine = filled(FLOAT32)
    blocks = engine.export_state(A, 0, HELD)
    next(blocks)
    engine.close(A)
    with pytest.raises(LocalProtocolError, match="the request holds 0"):
        next(blocks)
