"""Layers of any shape and packing made in memory, and engines of them: a file would only slow a test down."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import gguf
import numpy as np
import pytest
import torch
from torch import Tensor

from odsi_proto.kernels import native
from odsi_proto.kernels.cache import BLOCK_POSITIONS
from odsi_proto.kernels.config import ModelConfig
from odsi_proto.kernels.engine import StageEngine, StageStep
from odsi_proto.kernels.select import BackendKind, make_layers, select
from odsi_proto.kernels.weights import HeadWeights, LayerWeights, Matrix
from odsi_proto.units import LayerRange
from odsi_proto.wire.tensor import NumericProfile

LAYERS = 2
VOCABULARY = 261
"""Sixteen tiles of 16 rows and one with five."""


@dataclass(frozen=True, kw_only=True)
class Shape:
    """What sets one tiny model apart from another. The smallest that the native kernels take in FAST."""

    width: int = 32
    heads: int = 4
    kv_heads: int = 2
    head_size: int = 16
    feed_forward: int = 64
    bias: bool = False
    norm: bool = False
    packing: str = "F32"
    context: int = 256

    @property
    def config(self) -> ModelConfig:
        """As a file of this shape is read."""
        return ModelConfig(
            architecture="qwen3" if self.norm else "qwen2" if self.bias else "llama",
            layers_count=LAYERS,
            width=self.width,
            feed_forward_width=self.feed_forward,
            heads=self.heads,
            kv_heads=self.kv_heads,
            head_size=self.head_size,
            qkv_bias=self.bias,
            qk_norm=self.norm,
            rope_base=10_000.0,
            rope_pairs="adjacent",
            rope_scaling="none",
            rope_divisors=None,
            rope_magnitude=1.0,
            rope_factors=False,
            norm_epsilon=1e-5,
            context=self.context,
            vocabulary=VOCABULARY,
            tied_head=True,
        )


MISSING = native.why_not(Shape().config, NumericProfile.FAST)
needs_native = pytest.mark.skipif(MISSING is not None, reason=str(MISSING))


def make_engine(
    shape: Shape,
    profile: NumericProfile = NumericProfile.FLOAT32,
    kind: BackendKind = BackendKind.NATIVE,
    *,
    blocks: int = 64,
    threads: int = 1,
    **changes: Tensor,
) -> StageEngine:
    """An engine of ``LAYERS`` layers. A shape has the same weights at every call, but for ``changes``."""
    torch.set_num_threads(threads)  # as StageEngine.load does
    config = shape.config
    choice = select(config, profile, kind)
    generator = torch.Generator().manual_seed(1)
    weights = [replace(layer_weights(shape, generator), **changes) for _ in range(LAYERS)]
    backend = make_layers(choice, config, weights, profile, threads=threads)
    position_bytes = 2 * LAYERS * config.kv_width * backend.cache_dtype.itemsize
    kv_bytes_max = blocks * BLOCK_POSITIONS * position_bytes
    return StageEngine(config, LayerRange(0, LAYERS), backend, choice, kv_bytes_max)


def layer_weights(shape: Shape, generator: torch.Generator) -> LayerWeights:
    """Random weights that keep rows of size 1 at size 1."""
    queries, keys = shape.heads * shape.head_size, shape.kv_heads * shape.head_size

    def matrix(rows: int, columns: int) -> Matrix:
        return random_matrix(shape.packing, rows, columns, generator)

    def vector(size: int, middle: float) -> Tensor:
        return middle + 0.1 * torch.randn(size, generator=generator)

    bias = (vector(queries, 0.2), vector(keys, 0.2), vector(keys, 0.2)) if shape.bias else (None,) * 3
    norm = (vector(shape.head_size, 1), vector(shape.head_size, 1)) if shape.norm else (None, None)
    return LayerWeights(
        attention_norm=vector(shape.width, 1),
        query=matrix(queries, shape.width),
        key=matrix(keys, shape.width),
        value=matrix(keys, shape.width),
        query_bias=bias[0],
        key_bias=bias[1],
        value_bias=bias[2],
        query_norm=norm[0],
        key_norm=norm[1],
        attention_output=matrix(shape.width, queries),
        feed_forward_norm=vector(shape.width, 1),
        gate=matrix(shape.feed_forward, shape.width),
        up=matrix(shape.feed_forward, shape.width),
        down=matrix(shape.width, shape.feed_forward),
    )


def head_weights(shape: Shape, *, tied: bool = True) -> HeadWeights:
    """An embedding of ``VOCABULARY`` rows, and a head that is the same or another."""
    generator = torch.Generator().manual_seed(2)
    embedding = random_matrix(shape.packing, VOCABULARY, shape.width, generator)
    head = embedding if tied else random_matrix(shape.packing, VOCABULARY, shape.width, generator)
    return HeadWeights(
        embedding=embedding, norm=1 + 0.1 * torch.randn(shape.width, generator=generator), head=head
    )


def random_matrix(packing: str, rows: int, columns: int, generator: torch.Generator) -> Matrix:
    """Weights of about ``columns ** -0.5`` in any packing."""
    if packing in _K_BLOCK_BYTES:
        blocks = _k_blocks(packing, rows, columns, generator)
    else:
        values = torch.randn(rows, columns, generator=generator) * columns**-0.5
        packed = gguf.quants.quantize(values.numpy(), gguf.GGMLQuantizationType[packing])
        blocks = torch.from_numpy(np.ascontiguousarray(packed).view(np.uint8).reshape(rows, -1).copy())
    return Matrix(type=packing, blocks=blocks, shape=(rows, columns))


_K_BLOCK_BYTES = {"Q4_K": 144, "Q6_K": 210}
"""The ``gguf`` package unpacks these and can not pack them: random codes under scales that suit."""


def _k_blocks(packing: str, rows: int, columns: int, generator: torch.Generator) -> Tensor:
    size, unit = _K_BLOCK_BYTES[packing], columns**-0.5
    blocks = torch.randint(0, 256, (rows, columns // 256, size), dtype=torch.uint8, generator=generator)
    if packing == "Q4_K":  # 6-bit scales and minima, 4-bit codes: the middle code is 7.5
        _put_half(blocks, 0, unit / 256)
        _put_half(blocks, 2, 7.5 * unit / 256)
    else:  # 8-bit scales, 6-bit codes around 0
        _put_half(blocks, 208, unit / 1369)
    return blocks.flatten(1)


def _put_half(blocks: Tensor, at: int, value: float) -> None:
    blocks[..., at : at + 2] = torch.tensor([value], dtype=torch.float16).view(torch.uint8)


def random_rows(shape: Shape, count: int, seed: int = 0) -> Tensor:
    """Rows of size 1."""
    return torch.randn(count, shape.width, generator=torch.Generator().manual_seed(seed))


def run_in_steps(engine: StageEngine, request: bytes, rows: Tensor, sizes: Iterable[int]) -> Tensor:
    """The outputs of ``rows`` at the end of what ``request`` holds, in steps of so many."""
    results = [engine.run(request, engine.positions_held(request), part) for part in rows.split(list(sizes))]
    return torch.cat([rows[:0], *results])


def run_alone(engine: StageEngine, rows: Tensor, sizes: Sequence[int] | None = None) -> Tensor:
    """The outputs of a new request that has ``engine`` to itself and is closed again."""
    request = b"alone"
    engine.open(request, len(rows))
    result = run_in_steps(engine, request, rows, sizes or [len(rows)])
    engine.close(request)
    return result


def run_among(engine: StageEngine, rows: Tensor, sizes: Sequence[int], company: int) -> Tensor:
    """The outputs of ``rows``, each step of so many in a batch amid steps of ``company`` other requests."""
    others = [b"other %d" % index for index in range(company)]
    for name in (b"mine", *others):
        engine.open(name, len(rows) + 5 * len(sizes))
    results, half = [], company // 2
    for part in rows.split(list(sizes)):
        beside = [
            StageStep(name, engine.positions_held(name), rows[: 1 + index % 5] * (1.5 + index))
            for index, name in enumerate(others)
        ]
        mine = StageStep(b"mine", engine.positions_held(b"mine"), part)
        results.append(engine.run_batch([*beside[:half], mine, *beside[half:]])[half])
    for name in (b"mine", *others):
        engine.close(name)
    return torch.cat(results)


def relative_error(found: Tensor, expected: Tensor) -> float:
    """The largest distance of a row from what is expected, in lengths of that row."""
    difference = (found.double() - expected.double()).norm(dim=-1)
    return float((difference / expected.double().norm(dim=-1)).max())
