"""Layers by our own C: see ``native/stage.c`` for what it does and why.

The library is compiled when the package is installed (``hatch_build.py``), needs AVX-512 with VNNI, and
is called through ctypes, which lets go of the interpreter lock meanwhile. Everything that the C code
takes for granted is checked here.
"""

import ctypes
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from odsi_proto.kernels.backend import HeadBackend, LayersBackend, Segment, Stability
from odsi_proto.kernels.cache import PagedCache
from odsi_proto.kernels.config import ModelConfig
from odsi_proto.kernels.memory import Arena
from odsi_proto.kernels.packing import GROUP_COLUMNS, Codes, codes_of
from odsi_proto.kernels.rotary import Rotary
from odsi_proto.kernels.weights import HeadWeights, LayerWeights, Matrix
from odsi_proto.wire.tensor import NumericProfile

LIBRARY = Path(__file__).with_name("native") / "libodsi.so"

LANES = 16
"""Floats of a register: rows of a tile, and what widths must be a multiple of."""

INSTRUCTIONS = ("avx512f", "avx512bw", "avx512vl", "avx512dq", "avx512_vnni", "f16c", "fma")
"""What the library needs, as Linux names them."""

_LAYOUT = 1
"""``LAYOUT`` of native.h."""

_F32, _FOUR_BIT, _EIGHT_BIT = 0, 1, 2


class _Matrix(ctypes.Structure):
    """``struct matrix`` of native.h."""

    _fields_ = (
        ("kind", ctypes.c_int32),
        ("rows", ctypes.c_int32),
        ("columns", ctypes.c_int32),
        ("tiles", ctypes.c_int32),
        ("data", ctypes.c_void_p),
    )


class _Layer(ctypes.Structure):
    """``struct layer`` of native.h."""

    _fields_ = (
        *((name, _Matrix) for name in ("query", "key", "value", "attention_output", "gate", "up", "down")),
        *(
            (name, ctypes.c_void_p)
            for name in (
                "attention_norm",
                "feed_forward_norm",
                "query_bias",
                "key_bias",
                "value_bias",
                "query_norm",
                "key_norm",
            )
        ),
    )


class _Stage(ctypes.Structure):
    """``struct stage`` of native.h."""

    _fields_ = (
        ("layers", ctypes.c_void_p),
        *(
            (name, ctypes.c_int32)
            for name in ("layers_count", "width", "feed_forward", "heads", "kv_heads", "head_size")
        ),
        ("epsilon", ctypes.c_float),
        ("attention_scale", ctypes.c_float),
        ("rotation", ctypes.c_void_p),
        ("cache", ctypes.c_void_p),
        ("block_bytes", ctypes.c_int64),
        ("cache_is_f16", ctypes.c_int32),
        ("threads", ctypes.c_int32),
    )


def library() -> ctypes.CDLL | None:
    """The compiled kernels; None where they were not built or can not run."""
    loaded = _load(LIBRARY)
    return None if isinstance(loaded, str) else loaded


@cache
def _load(path: Path) -> ctypes.CDLL | str:
    """The library, or in a few words why there is none."""
    if not path.exists():
        return "the native kernels were not built when the package was installed: no C compiler, or it failed"
    try:
        found = ctypes.CDLL(str(path))
    except OSError as error:
        return f"the native kernels can not be loaded: {error}"
    if not found.odsi_is_supported():
        return "this processor has no AVX-512 with VNNI"
    layout = _LAYOUT * 10_000 + ctypes.sizeof(_Stage) + ctypes.sizeof(_Layer)
    if not hasattr(found, "odsi_layout") or found.odsi_layout() != layout:
        return "the native kernels were built from other sources: install the package again"
    pointer, i32, f32 = ctypes.c_void_p, ctypes.c_int32, ctypes.c_float
    found.odsi_scratch.restype = ctypes.c_int64
    found.odsi_scratch.argtypes = (pointer, i32, i32)
    found.odsi_run.argtypes = (pointer, pointer, i32, i32, pointer, pointer)
    found.odsi_head.argtypes = (pointer, pointer, f32, pointer, i32, pointer, pointer, i32)
    found.odsi_matrix_row.argtypes = (pointer, i32, pointer)
    return found


def why_not(config: ModelConfig, profile: NumericProfile, library_path: Path = LIBRARY) -> str | None:
    """What keeps the native kernels from running a model here; None if nothing does."""
    loaded = _load(library_path)
    if isinstance(loaded, str):
        return loaded
    multiple = LANES if profile is NumericProfile.FLOAT32 else GROUP_COLUMNS
    sizes = (config.width, config.feed_forward_width, config.heads * config.head_size)
    if any(size % multiple for size in sizes) or config.head_size % LANES:
        return f"the model's widths are not multiples of {multiple}, or its head size not of {LANES}"
    return None


class NativeLayers(LayersBackend):
    """Layers in C, in float32 or with packed weights. Every row has the same bits in every company."""

    stability = Stability(batch=True, chunks=True, threads=True)

    def __init__(
        self, config: ModelConfig, layers: Iterable[LayerWeights], profile: NumericProfile, *, threads: int
    ) -> None:
        assert threads >= 1, "each thread has a share of the scratch memory"
        self.profile = profile
        self.name = _name(profile)
        is_exact = profile is NumericProfile.FLOAT32
        self.cache_dtype = torch.float32 if is_exact else torch.float16
        self._arena = Arena()
        self._kept: list[Tensor] = []
        """What the structures point to."""
        self._rotary = Rotary(config)
        structures = [self._layer(weights) for weights in layers]
        self._layers = (_Layer * len(structures))(*structures)
        self._scratch = torch.empty(0)
        self._stage = _Stage(
            layers=ctypes.addressof(self._layers),
            layers_count=len(structures),
            width=config.width,
            feed_forward=config.feed_forward_width,
            heads=config.heads,
            kv_heads=config.kv_heads,
            head_size=config.head_size,
            epsilon=config.norm_epsilon,
            attention_scale=config.head_size**-0.5,
            cache_is_f16=not is_exact,
            threads=threads,
        )

    def run(self, rows: Tensor, segments: Sequence[Segment], cache: PagedCache) -> Tensor:
        native = library()
        assert native is not None
        self._check(rows, segments, cache)
        rows = rows.contiguous()
        count, end = len(rows), max(segment.first + segment.length for segment in segments)
        rotation = self._rotary.single(end)
        stage = self._stage
        stage.rotation, stage.cache = rotation.data_ptr(), cache.pool.data_ptr()
        stage.block_bytes = cache.shape.block_bytes
        # ``struct place`` of native.h: where the request's blocks are listed, and the position.
        places = torch.empty(count, 2, dtype=torch.int64)
        at = 0
        for state, first, length in segments:
            places[at : at + length, 0] = state.table.data_ptr()
            places[at : at + length, 1] = torch.arange(first, first + length)
            at += length
        needed = native.odsi_scratch(ctypes.byref(stage), count, end)
        if len(self._scratch) < needed:
            self._scratch = torch.empty(needed)
        native.odsi_run(
            ctypes.byref(stage), places.data_ptr(), count, end, rows.data_ptr(), self._scratch.data_ptr()
        )
        return rows

    def _check(self, rows: Tensor, segments: Sequence[Segment], cache: PagedCache) -> None:
        """What the C code reads and writes is there: the engine has refused everything else."""
        stage, shape = self._stage, cache.shape
        assert rows.dtype is torch.float32
        assert rows.shape == (sum(segment.length for segment in segments), stage.width)
        assert (shape.dtype, shape.layers) == (self.cache_dtype, stage.layers_count)
        assert (shape.kv_heads, shape.head_size) == (stage.kv_heads, stage.head_size)
        for state, first, length in segments:
            assert first >= 0
            assert length >= 1
            assert first + length <= LANES * len(state.table)

    def _layer(self, weights: LayerWeights) -> _Layer:
        return _Layer(
            query=self._matrix(weights.query),
            key=self._matrix(weights.key),
            value=self._matrix(weights.value),
            attention_output=self._matrix(weights.attention_output),
            gate=self._matrix(weights.gate),
            up=self._matrix(weights.up),
            down=self._matrix(weights.down),
            attention_norm=self._vector(weights.attention_norm),
            feed_forward_norm=self._vector(weights.feed_forward_norm),
            query_bias=self._vector(weights.query_bias),
            key_bias=self._vector(weights.key_bias),
            value_bias=self._vector(weights.value_bias),
            query_norm=self._vector(weights.query_norm),
            key_norm=self._vector(weights.key_norm),
        )

    def _matrix(self, matrix: Matrix) -> _Matrix:
        packed, structure = _pack(matrix, self.profile, self._arena)
        self._kept.append(packed)
        return structure

    def _vector(self, vector: Tensor | None) -> int | None:
        if vector is None:
            return None
        kept = vector.float().contiguous()
        self._kept.append(kept)
        return kept.data_ptr()


class NativeHead(HeadBackend):
    """Embedding and head in C; both stay packed in a fast profile."""

    def __init__(
        self, config: ModelConfig, weights: HeadWeights, profile: NumericProfile, *, threads: int
    ) -> None:
        self.profile = profile
        self.name = _name(profile)
        self._epsilon = config.norm_epsilon
        self._threads = threads
        self._norm = weights.norm.float().contiguous()
        arena = Arena()
        self._kept, self._embedding = _pack(weights.embedding, profile, arena)
        self._head = self._embedding
        if weights.head is not weights.embedding:
            self._kept_head, self._head = _pack(weights.head, profile, arena)

    def embed(self, token_ids: Sequence[int]) -> Tensor:
        native = library()
        assert native is not None
        assert all(0 <= token < self._embedding.rows for token in token_ids)
        rows = torch.empty(len(token_ids), self._embedding.columns)
        for row, token in zip(rows, token_ids, strict=True):
            native.odsi_matrix_row(ctypes.byref(self._embedding), token, row.data_ptr())
        return rows

    def logits(self, rows: Tensor) -> Tensor:
        native = library()
        assert native is not None
        rows = rows.float().contiguous()
        count, width = rows.shape
        assert width == self._head.columns
        out = torch.empty(count, self._head.rows)
        scratch = torch.empty(count * (width + 3 * (width // GROUP_COLUMNS + 1) + width // 2 + LANES))
        native.odsi_head(
            ctypes.byref(self._head),
            self._norm.data_ptr(),
            self._epsilon,
            rows.data_ptr(),
            count,
            out.data_ptr(),
            scratch.data_ptr(),
            self._threads,
        )
        return out


def _name(profile: NumericProfile) -> str:
    numbers = "float32" if profile is NumericProfile.FLOAT32 else "packed weights, rows of 8 to 16 bits"
    return f"native, AVX-512, {numbers}"


def _pack(matrix: Matrix, profile: NumericProfile, arena: Arena) -> tuple[Tensor, _Matrix]:
    """The tiles of a matrix as native.h describes them, and the structure that points to them."""
    rows, columns = matrix.shape
    tiles = -(-rows // LANES)
    if profile is NumericProfile.FLOAT32:
        dense = _padded(matrix.dequantised(), tiles)
        kind, packed = _F32, dense.view(tiles, LANES, columns).transpose(1, 2).contiguous()
    else:
        codes = codes_of(matrix)
        kind, packed = (_EIGHT_BIT if codes.minima is None else _FOUR_BIT), _tiles(codes, tiles)
    data = arena.keep(packed.view(torch.uint8).flatten())
    return data, _Matrix(kind=kind, rows=rows, columns=columns, tiles=tiles, data=data.data_ptr())


def _tiles(codes: Codes, tiles: int) -> Tensor:
    """uint8 [tiles, groups, bytes of a tile's group]."""
    by_quad = _padded(codes.codes, tiles).view(tiles, LANES, -1, 8, 4).permute(0, 2, 3, 1, 4)
    scales = _by_group(codes.scales, tiles)
    if codes.minima is None:
        return torch.cat([by_quad.flatten(2), scales], -1)
    nibbles = by_quad[:, :, :4] | by_quad[:, :, 4:] << 4
    return torch.cat([nibbles.flatten(2), scales, _by_group(codes.minima, tiles)], -1)


def _by_group(numbers: Tensor, tiles: int) -> Tensor:
    """float16 [rows, groups] as bytes [tiles, groups, 2 * 16]."""
    return _padded(numbers, tiles).view(tiles, LANES, -1).transpose(1, 2).contiguous().view(torch.uint8)


def _padded(rows: Tensor, tiles: int) -> Tensor:
    missing = tiles * LANES - len(rows)
    return rows if not missing else torch.cat([rows, rows.new_zeros(missing, rows.shape[1])])
