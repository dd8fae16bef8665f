"""Keys and values in blocks of 16 positions, shared by all requests of a stage.

A request reserves its blocks when it opens, so memory runs out at OPEN, or at a rollback into shared
state, and never while steps run. A block that two requests share (after a fork) is full and is never
written again: whoever would write into one gets a copy first, when it is rolled back or forked.

Within a block, for each layer, come the keys and then the values of each head: keys as
[head_size, 16], so that the scores of 16 positions are computed side by side, values as
[16, head_size]. What leaves the process is in order of position instead: see :class:`StateBlock`.
"""

import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import sha256

import torch
from torch import Tensor

from odsi_proto.errors import CapacityError, LocalProtocolError, Malformed
from odsi_proto.kernels.memory import large_pages

BLOCK_POSITIONS = 16

_HEAD = struct.Struct("<5I")


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheShape:
    """What one position of state is, at one stage."""

    layers: int
    kv_heads: int
    head_size: int
    dtype: torch.dtype

    @property
    def position_bytes(self) -> int:
        """Keys and values of all layers for one position."""
        return 2 * self.layers * self.kv_heads * self.head_size * self.dtype.itemsize

    @property
    def block_bytes(self) -> int:
        """One block of all layers."""
        return BLOCK_POSITIONS * self.position_bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class StateBlock:
    """Up to 16 positions of state on their way to another node: the same bytes whatever computed them.

    ``data`` is [positions, layers, 2, kv_heads, head_size], keys before values, little-endian, in
    the cache's number format.
    """

    first: int
    """The first position."""
    count: int
    data: bytes
    digest: bytes
    """SHA-256 over first, count, layers, heads and head size (each 4 bytes, little-endian) and ``data``."""


@dataclass(slots=True)
class RequestState:
    """The blocks of one request and how far they are filled."""

    blocks: list[int]
    positions_max: int
    positions_held: int = 0
    table: Tensor = field(init=False)
    """The blocks again, as kernels take them: int32, contiguous."""

    def __post_init__(self) -> None:
        self.retable()

    def retable(self) -> None:
        """Follow a change of ``blocks``."""
        self.table = torch.tensor(self.blocks, dtype=torch.int32)


class PagedCache:
    """All state of a stage: a pool of blocks, and who holds which."""

    def __init__(self, shape: CacheShape, bytes_max: int) -> None:
        self.shape = shape
        self.blocks_count = bytes_max // shape.block_bytes
        # Not touched: the system gives pages to blocks when they are first written.
        self.pool = large_pages(self.blocks_count * shape.block_bytes).view(-1, shape.block_bytes)
        self._free = list(range(self.blocks_count - 1, -1, -1))
        self._holders = [0] * self.blocks_count

    @property
    def bytes_used(self) -> int:
        """Memory of the blocks that are reserved, shared ones once."""
        return (self.blocks_count - len(self._free)) * self.shape.block_bytes

    @property
    def bytes_max(self) -> int:
        """Memory of all blocks."""
        return self.blocks_count * self.shape.block_bytes

    def bytes_for(self, positions: int) -> int:
        """Memory that a request of so many positions reserves."""
        return _blocks_for(positions) * self.shape.block_bytes

    def reserve(self, positions_max: int) -> RequestState:
        """Blocks for a new request; ``CapacityError`` with the numbers if there are too few."""
        return RequestState(
            self._take(_blocks_for(positions_max), f"{positions_max} positions"), positions_max
        )

    def release(self, state: RequestState) -> None:
        """Give back what a request holds. Its ``table`` stays: a step that runs may still read it."""
        self._drop(state.blocks)
        state.blocks, state.positions_held = [], 0  # an export that goes on finds nothing

    def fork(self, state: RequestState, positions_max: int) -> RequestState:
        """A second request with the same history: shares the full blocks, copies the last one.

        Raises ``CapacityError``, or ``LocalProtocolError`` if it would not hold the history.
        """
        held = state.positions_held
        if positions_max < held:
            raise LocalProtocolError(f"a fork of {held} positions in {positions_max}")
        shared = state.blocks[: held // BLOCK_POSITIONS]
        own = self._take(_blocks_for(positions_max) - len(shared), f"a fork to {positions_max} positions")
        for block in shared:
            self._holders[block] += 1
        forked = RequestState([*shared, *own], positions_max, held)
        if held % BLOCK_POSITIONS:
            self.pool[own[0]] = self.pool[state.blocks[len(shared)]]
        return forked

    def roll_back(self, state: RequestState, position: int) -> None:
        """Forget what is at ``position`` and after it.

        Raises ``CapacityError``, with nothing changed, if a block that is shared would be written next
        and no copy of it fits.
        """
        if not 0 <= position <= state.positions_held:
            raise LocalProtocolError(f"a rollback to {position}, the request holds {state.positions_held}")
        first = position // BLOCK_POSITIONS
        shared = [i for i in range(first, len(state.blocks)) if self._holders[state.blocks[i]] > 1]
        own = self._take(len(shared), f"a rollback to position {position} of shared state")
        for index, block in zip(shared, own, strict=True):
            if index == first and position % BLOCK_POSITIONS:
                self.pool[block] = self.pool[state.blocks[index]]
            self._holders[state.blocks[index]] -= 1
            state.blocks[index] = block
        state.positions_held = position
        state.retable()

    def keys(self, state: RequestState, layer: int, end: int) -> Tensor:
        """A copy of one layer's keys [kv_heads, end, head_size]."""
        return self._gather(state, layer, 0, end).transpose(-1, -2).permute(1, 0, 2, 3).flatten(1, 2)[:, :end]

    def values(self, state: RequestState, layer: int, end: int) -> Tensor:
        """A copy of one layer's values [kv_heads, end, head_size]."""
        return self._gather(state, layer, 1, end).permute(1, 0, 2, 3).flatten(1, 2)[:, :end]

    def write(self, state: RequestState, layer: int, first: int, keys: Tensor, values: Tensor) -> None:
        """Put keys and values [count, kv_heads, head_size] of one layer at ``first`` and after."""
        positions = torch.arange(first, first + len(keys))
        blocks = state.table[positions // BLOCK_POSITIONS].long()
        lanes = positions % BLOCK_POSITIONS
        self._keys(layer)[blocks, :, :, lanes] = keys.to(self.shape.dtype)
        self._values(layer)[blocks, :, lanes] = values.to(self.shape.dtype)

    def export(self, state: RequestState, first: int, count: int) -> StateBlock:
        """``count`` positions from ``first`` on, which lie in one block."""
        if not 0 < count <= BLOCK_POSITIONS or not 0 <= first <= state.positions_held - count:
            raise LocalProtocolError(
                f"positions {first}-{first + count}, the request holds {state.positions_held}"
            )
        index, lane = divmod(first, BLOCK_POSITIONS)
        if lane + count > BLOCK_POSITIONS:
            raise LocalProtocolError(f"positions {first}-{first + count} lie in two blocks")
        shape, block = self.shape, state.blocks[index]
        parts = self._parts()[block]
        keys = torch.unflatten(parts[:, 0], -1, (shape.head_size, BLOCK_POSITIONS)).permute(3, 0, 1, 2)
        values = torch.unflatten(parts[:, 1], -1, (BLOCK_POSITIONS, shape.head_size)).permute(2, 0, 1, 3)
        rows = torch.stack([keys, values], 2)[lane : lane + count].contiguous()
        data = rows.view(torch.uint8).numpy().tobytes()
        return StateBlock(first=first, count=count, data=data, digest=self._digest(first, count, data))

    def take_in(self, state: RequestState, block: StateBlock) -> None:
        """Append what another node exported; raises ``Malformed``, with nothing changed."""
        count, shape = block.count, self.shape
        if block.first != state.positions_held:
            raise Malformed(f"state from position {block.first}, the request holds {state.positions_held}")
        if not 0 < count <= BLOCK_POSITIONS or block.first + count > state.positions_max:
            raise Malformed(f"{count} positions of state from {block.first}, of {state.positions_max}")
        if len(block.data) != count * shape.position_bytes:
            raise Malformed(f"{len(block.data)} bytes are not {count} positions of state")
        if self._digest(block.first, count, block.data) != block.digest:
            raise Malformed(f"the state from position {block.first} has another digest than was announced")
        flat = torch.frombuffer(bytearray(block.data), dtype=shape.dtype)
        rows = flat.view(count, shape.layers, 2, shape.kv_heads, shape.head_size)
        if not torch.isfinite(rows).all():
            raise Malformed(f"the state from position {block.first} has a value that is not finite")
        for layer in range(shape.layers):
            self.write(state, layer, block.first, rows[:, layer, 0], rows[:, layer, 1])
        state.positions_held += count

    def _digest(self, first: int, count: int, data: bytes) -> bytes:
        shape = self.shape
        return sha256(_HEAD.pack(first, count, shape.layers, shape.kv_heads, shape.head_size) + data).digest()

    def _parts(self) -> Tensor:
        """The pool as numbers: [blocks, layers, 2, kv_heads, 16 * head_size]."""
        shape = self.shape
        return self.pool.view(shape.dtype).view(self.blocks_count, shape.layers, 2, shape.kv_heads, -1)

    def _keys(self, layer: int) -> Tensor:
        return torch.unflatten(self._parts()[:, layer, 0], -1, (self.shape.head_size, BLOCK_POSITIONS))

    def _values(self, layer: int) -> Tensor:
        return torch.unflatten(self._parts()[:, layer, 1], -1, (BLOCK_POSITIONS, self.shape.head_size))

    def _gather(self, state: RequestState, layer: int, kind: int, end: int) -> Tensor:
        of_layer = self._values(layer) if kind else self._keys(layer)
        return of_layer.index_select(0, state.table[: _blocks_for(end)])

    def _take(self, count: int, what: str) -> list[int]:
        if count > len(self._free):
            raise CapacityError(
                f"{what} need {count * self.shape.block_bytes} bytes of keys and values, "
                f"{len(self._free) * self.shape.block_bytes} of {self.bytes_max} are free"
            )
        taken = [self._free.pop() for _ in range(count)]
        for block in taken:
            self._holders[block] = 1
        return taken

    def _drop(self, blocks: Sequence[int]) -> None:
        for block in reversed(blocks):
            self._holders[block] -= 1
            if not self._holders[block]:
                self._free.append(block)


def _blocks_for(positions: int) -> int:
    return -(-positions // BLOCK_POSITIONS)
