"""Requests opened, forked, rolled back, run, moved and closed in any order, against a list of rows for each.

What a request answers is worked out anew each time, by a request that has an engine to itself.
"""

from dataclasses import dataclass

import pytest
import torch
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from kernels.tiny_layers import Shape, make_engine, needs_native, random_rows, run_alone
from properties.profile import share

from odsi_proto.errors import CapacityError
from odsi_proto.kernels.cache import BLOCK_POSITIONS
from odsi_proto.kernels.engine import StageStep
from odsi_proto.wire.tensor import NumericProfile

SHAPE = Shape()
POOL = random_rows(SHAPE, 128)
"""A row is its index in here."""
BLOCKS, REQUESTS_MAX = 10, 5

which = st.integers(0, REQUESTS_MAX - 1)
rooms = st.integers(1, 4 * BLOCK_POSITIONS)


@dataclass
class Mine:
    """A request as the model sees it."""

    room: int
    rows: list[int]


class CacheMachine(RuleBasedStateMachine):
    """One engine with little memory, and one with much in which every answer is found again."""

    profile: NumericProfile

    @initialize()
    def set_up(self) -> None:
        self.engine = make_engine(SHAPE, self.profile, blocks=BLOCKS)
        self.oracle = make_engine(SHAPE, self.profile)
        self.mine: dict[bytes, Mine] = {}
        self.named = 0

    def a_request(self, index: int) -> bytes:
        """One that has run, if there is one: on the others little can go wrong."""
        names = [name for name, mine in self.mine.items() if mine.rows] or list(self.mine)
        return names[index % len(names)]

    def new_name(self) -> bytes:
        self.named += 1
        return self.named.to_bytes(16, "big")

    def blocks(self, name: bytes) -> list[int]:
        return self.engine._requests[name].blocks

    @property
    def free(self) -> int:
        held = {block for name in self.mine for block in self.blocks(name)}
        return BLOCKS - len(held)

    def step(self, name: bytes, count: int) -> StageStep:
        """The next step of a request, of at most ``count`` rows, put down as done."""
        mine = self.mine[name]
        first = len(mine.rows)
        mine.rows += [(31 * self.named + 7 * first + index) % len(POOL) for index in range(count)]
        del mine.rows[mine.room :]
        return StageStep(name, first, POOL[mine.rows[first:]])

    def answer(self, step: StageStep) -> torch.Tensor:
        return run_alone(self.oracle, POOL[self.mine[step.request_id].rows])[step.first_position :]

    @precondition(lambda self: len(self.mine) < REQUESTS_MAX)
    @rule(room=rooms)
    def open(self, room: int) -> None:
        name = self.new_name()
        if -(-room // BLOCK_POSITIONS) > self.free:
            with pytest.raises(CapacityError):
                self.engine.open(name, room)
            return
        self.engine.open(name, room)
        self.mine[name] = Mine(room, [])

    @precondition(lambda self: 0 < len(self.mine) < REQUESTS_MAX)
    @rule(index=which, extra=rooms)
    def fork(self, index: int, extra: int) -> None:
        name, new = self.a_request(index), self.new_name()
        rows = self.mine[name].rows
        room = len(rows) + extra
        if -(-room // BLOCK_POSITIONS) - len(rows) // BLOCK_POSITIONS > self.free:
            with pytest.raises(CapacityError):
                self.engine.fork(name, new, room)
            return
        self.engine.fork(name, new, room)
        self.mine[new] = Mine(room, list(rows))

    @precondition(lambda self: self.mine)
    @rule(index=which, back=st.integers(0, 3 * BLOCK_POSITIONS))
    def roll_back(self, index: int, back: int) -> None:
        name = self.a_request(index)
        rows = self.mine[name].rows
        position = max(0, len(rows) - back)
        others = {block for other in self.mine if other != name for block in self.blocks(other)}
        if len(others.intersection(self.blocks(name)[position // BLOCK_POSITIONS :])) > self.free:
            with pytest.raises(CapacityError):
                self.engine.roll_back(name, position)
            return
        self.engine.roll_back(name, position)
        del rows[position:]

    @precondition(lambda self: self.mine)
    @rule(indices=st.lists(which, min_size=1, max_size=3), count=st.integers(1, 40))
    def run(self, indices: list[int], count: int) -> None:
        every = list(self.mine)
        names = {every[index % len(every)]: None for index in indices}
        steps = [self.step(name, count) for name in names if len(self.mine[name].rows) < self.mine[name].room]
        found = self.engine.run_batch(steps) if steps else []
        assert all(torch.equal(rows, self.answer(step)) for rows, step in zip(found, steps, strict=True))

    @precondition(lambda self: self.mine)
    @rule(index=which)
    def close(self, index: int) -> None:
        name = self.a_request(index)
        self.engine.close(name)
        del self.mine[name]

    @precondition(lambda self: 0 < len(self.mine) < REQUESTS_MAX)
    @rule(index=which)
    def copy_through_another_engine(self, index: int) -> None:
        name, new = self.a_request(index), self.new_name()
        mine = self.mine[name]
        if -(-mine.room // BLOCK_POSITIONS) > self.free:
            return
        self.oracle.open(new, mine.room)
        for block in self.engine.export_state(name, 0, len(mine.rows)):
            self.oracle.import_state(new, block)
        self.engine.open(new, mine.room)
        for block in self.oracle.export_state(new, 0, len(mine.rows)):
            self.engine.import_state(new, block)
        self.oracle.close(new)
        self.mine[new] = Mine(mine.room, list(mine.rows))

    @invariant()
    def memory_is_that_of_the_blocks_that_requests_hold(self) -> None:
        used = BLOCKS - self.free
        assert self.engine.kv_bytes_used == used * self.engine.kv_bytes(1)
        assert self.engine.kv_bytes_max == BLOCKS * self.engine.kv_bytes(1)

    @invariant()
    def a_request_holds_what_it_reserved_and_the_rows_it_ran(self) -> None:
        for name, mine in self.mine.items():
            blocks = self.blocks(name)
            assert len(set(blocks)) == len(blocks) == -(-mine.room // BLOCK_POSITIONS)
            assert self.engine._requests[name].table.tolist() == blocks
            assert self.engine.positions_held(name) == len(mine.rows)

    @invariant()
    def a_block_is_shared_only_by_requests_with_one_history_up_to_its_end(self) -> None:
        seen: dict[int, tuple[int, list[int]]] = {}
        for name, mine in self.mine.items():
            for index, block in enumerate(self.blocks(name)):
                history = mine.rows[: (index + 1) * BLOCK_POSITIONS]
                if block in seen:
                    assert len(history) == (index + 1) * BLOCK_POSITIONS
                assert seen.setdefault(block, (index, history)) == (index, history)

    def teardown(self) -> None:
        for name in self.mine:
            self.engine.close(name)
        assert self.engine.kv_bytes_used == 0


class ExactMachine(CacheMachine):
    """With float32 state."""

    profile = NumericProfile.FLOAT32


class FastMachine(CacheMachine):
    """With binary16 state."""

    profile = NumericProfile.FAST


TestExact = needs_native(ExactMachine.TestCase)
TestExact.settings = share(60, steps=40)
TestFast = needs_native(FastMachine.TestCase)
TestFast.settings = share(20, steps=40)
