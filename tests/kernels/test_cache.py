"""What requests hold of a stage's memory: blocks of 16 positions, shared by forks, copied before a write."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from kernels.tiny_layers import Shape, make_engine, needs_native, random_rows, run_alone, run_in_steps
from properties.profile import share

from odsi_proto.errors import CapacityError, LocalProtocolError
from odsi_proto.kernels.engine import StageEngine

pytestmark = needs_native

A, B, C = b"a", b"b", b"c"
SHAPE = Shape()
ROWS, OTHERS = random_rows(SHAPE, 64), random_rows(SHAPE, 64, seed=1)
HELD = 37
"""Positions that request A holds: two full blocks and five positions of a third."""


@pytest.fixture
def engine() -> StageEngine:
    return make_engine(SHAPE, blocks=8)


@pytest.fixture
def holding(engine: StageEngine) -> StageEngine:
    """Request A has three blocks, filled to ``HELD``."""
    engine.open(A, 48)
    engine.run(A, 0, ROWS[:HELD])
    return engine


def blocks_used(engine: StageEngine) -> int:
    return engine.kv_bytes_used // engine.kv_bytes(1)


def as_never_further(engine: StageEngine, position: int) -> torch.Tensor:
    """What eleven other rows after the first ``position`` rows come to, in a request that saw no others."""
    fresh = make_engine(SHAPE)
    return run_alone(fresh, torch.cat([ROWS[:position], OTHERS[:11]]))[position:]


@pytest.mark.parametrize(
    ("positions", "blocks"), [(1, 1), (15, 1), (16, 1), (17, 2), (32, 2), (33, 3), (128, 8)]
)
def test_a_request_reserves_whole_blocks(engine: StageEngine, positions: int, blocks: int) -> None:
    engine.open(A, positions)
    assert blocks_used(engine) == blocks
    assert engine.kv_bytes(positions) == engine.kv_bytes_used
    engine.close(A)
    assert engine.kv_bytes_used == 0


def test_steps_take_no_memory_beyond_the_reservation(engine: StageEngine) -> None:
    engine.open(A, 48)
    for _ in range(48):
        run_in_steps(engine, A, ROWS[:1], [1])
        assert blocks_used(engine) == 3


@pytest.mark.parametrize(("held", "own"), [(0, 3), (15, 3), (16, 2), (17, 2), (32, 1), (47, 1), (48, 0)])
def test_a_fork_shares_full_blocks_and_has_the_others_for_itself(
    engine: StageEngine, held: int, own: int
) -> None:
    engine.open(A, 48)
    run_in_steps(engine, A, ROWS[:held], [1] * held)
    engine.fork(A, B, 48)
    assert blocks_used(engine) == 3 + own
    assert engine.positions_held(B) == held


def test_a_fork_and_its_parent_part_and_neither_sees_the_other(holding: StageEngine) -> None:
    holding.fork(A, B, 64)
    parent, fork = [], []
    for index in range(11):
        parent.append(holding.run(A, HELD + index, ROWS[HELD + index :][:1]))
        fork.append(holding.run(B, HELD + index, OTHERS[index : index + 1]))
    assert torch.equal(torch.cat(parent), run_alone(make_engine(SHAPE), ROWS[:48])[HELD:])
    assert torch.equal(torch.cat(fork), as_never_further(holding, HELD))


def test_a_fork_of_a_fork_goes_on_after_both_have_closed(holding: StageEngine) -> None:
    holding.fork(A, B, 48)
    holding.fork(B, C, 48)
    holding.close(A)
    holding.close(B)
    assert torch.equal(holding.run(C, HELD, OTHERS[:11]), as_never_further(holding, HELD))


def test_a_fork_holds_its_history_and_not_one_position_less(holding: StageEngine) -> None:
    with pytest.raises(LocalProtocolError, match="a fork of 37 positions in 36"):
        holding.fork(A, B, HELD - 1)
    assert not holding.is_open(B)
    holding.fork(A, B, HELD)
    assert blocks_used(holding) == 4


def test_a_fork_takes_the_last_free_block_and_not_one_more(holding: StageEngine) -> None:
    holding.open(C, 48)  # two blocks are left
    with pytest.raises(
        CapacityError, match=r"a fork to 65 positions need 24576 bytes .* 16384 of 65536 are free"
    ):
        holding.fork(A, B, 65)
    assert not holding.is_open(B)
    assert blocks_used(holding) == 6
    holding.fork(A, B, 64)
    assert blocks_used(holding) == 8


@pytest.mark.parametrize("position", [0, 1, 15, 16, 17, 32, 36, HELD])
def test_a_request_rolled_back_goes_on_as_if_it_had_never_gone_further(
    holding: StageEngine, position: int
) -> None:
    holding.roll_back(A, position)
    assert blocks_used(holding) == 3
    assert torch.equal(holding.run(A, position, OTHERS[:11]), as_never_further(holding, position))


@pytest.mark.parametrize("position", [-1, HELD + 1, 1 << 40])
def test_a_rollback_to_what_is_not_held_is_refused(holding: StageEngine, position: int) -> None:
    with pytest.raises(LocalProtocolError, match=f"a rollback to {position}, the request holds 37"):
        holding.roll_back(A, position)
    assert holding.positions_held(A) == HELD


@pytest.mark.parametrize(
    ("position", "copies"), [(0, 2), (15, 2), (16, 1), (17, 1), (31, 1), (32, 0), (33, 0)]
)
@pytest.mark.parametrize("who", [A, B], ids=["parent", "fork"])
def test_a_rollback_into_shared_blocks_copies_them(
    holding: StageEngine, who: bytes, position: int, copies: int
) -> None:
    holding.fork(A, B, 48)
    holding.roll_back(who, position)
    assert blocks_used(holding) == 4 + copies
    assert torch.equal(holding.run(who, position, OTHERS[:11]), as_never_further(holding, position))
    other = A if who == B else B
    assert torch.equal(holding.run(other, HELD, OTHERS[:11]), as_never_further(holding, HELD))


def test_a_rollback_whose_copy_does_not_fit_changes_nothing(holding: StageEngine) -> None:
    holding.fork(A, B, 48)
    holding.open(C, 48)  # one block is left, two are shared
    before = list(holding.export_state(B, 0, HELD))
    with pytest.raises(CapacityError, match="a rollback to position 15 of shared state need 16384 bytes"):
        holding.roll_back(B, 15)
    assert holding.positions_held(B) == HELD
    assert blocks_used(holding) == 7
    assert list(holding.export_state(B, 0, HELD)) == before
    holding.roll_back(B, 16)
    assert blocks_used(holding) == 8


def test_a_rollback_out_of_what_was_shared_copies_nothing_once_the_other_has_closed(
    holding: StageEngine,
) -> None:
    holding.fork(A, B, 48)
    holding.close(A)
    holding.roll_back(B, 5)
    assert blocks_used(holding) == 3


@given(st.permutations([A, B, C, b"d", b"e"]))
@share(20)
def test_requests_closed_in_any_order_give_everything_back(order: list[bytes]) -> None:
    engine = make_engine(SHAPE, blocks=16)
    engine.open(A, 48)
    engine.run(A, 0, ROWS[:HELD])
    engine.fork(A, B, 48)
    engine.fork(B, C, 40)
    engine.open(b"d", 20)
    engine.fork(A, b"e", 37)
    for name in order:
        engine.close(name)
    assert engine.kv_bytes_used == 0
    engine.open(A, 256)
    assert engine.kv_bytes_used == engine.kv_bytes_max


def test_what_a_closed_request_held_is_not_seen_by_the_next(holding: StageEngine) -> None:
    holding.run(A, HELD, torch.full((1, SHAPE.width), float("nan")))
    holding.close(A)
    holding.open(B, 48)
    assert torch.equal(holding.run(B, 0, ROWS[:3]), run_alone(make_engine(SHAPE), ROWS[:3]))
