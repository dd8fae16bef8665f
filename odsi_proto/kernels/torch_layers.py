"""Layers by torch's operators: what runs where the native kernels do not.

``exact`` keeps weights in float32 and transposed, [inputs, outputs]: a decode step multiplies one row by
each matrix and is bound by memory, and torch goes through a layer 1.3 times as fast that way, and
through the head 1.7 times, as by dot products with the file's own rows. Query, key and value share
one matrix, as do gate and up: a call less, and a longer run through memory.

``fast`` gives four-bit blocks as they are to torch's int4 kernel, which takes a scale and a zero point for
each 32 columns, and keeps other packings in bfloat16; rows are bfloat16 inside a product and float32
outside.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor
from torch.nn import functional

from odsi_proto.kernels.backend import HeadBackend, LayersBackend, Segment, Stability
from odsi_proto.kernels.cache import PagedCache
from odsi_proto.kernels.config import ModelConfig
from odsi_proto.kernels.packing import Codes, four_bit_codes
from odsi_proto.kernels.rotary import Rotary
from odsi_proto.kernels.weights import HeadWeights, LayerWeights, Matrix
from odsi_proto.wire.tensor import NumericProfile

_INT4_ROWS = 16
"""torch's int4 kernel takes whole tiles of so many outputs."""


class RmsNorm:
    """x / sqrt(mean(x^2) + epsilon) * weight, for each row.

    Written as x * (weight * sqrt(n)) / hypot(|x|, sqrt(n * epsilon)), which is the same in four
    calls instead of six. A fifth makes a row whose squares leave binary32 no number: divided by infinity
    it would be 0, and its keys and values would be wrong without a word.
    """

    def __init__(self, weight: Tensor, epsilon: float) -> None:
        width = weight.numel()
        self._weight = weight * math.sqrt(width)
        self._floor = torch.tensor(math.sqrt(width * epsilon))

    def __call__(self, rows: Tensor) -> Tensor:
        length = torch.linalg.vector_norm(rows, dim=-1, keepdim=True)
        divisor = torch.hypot(length, self._floor).add_(length, alpha=0)  # 0 times infinity
        return (rows * self._weight).div_(divisor)


class _Product(ABC):
    """Rows times some matrices, side by side."""

    @abstractmethod
    def __call__(self, rows: Tensor) -> Tensor:
        """float32 [count, inputs] to [count, outputs]."""


class _Dense(_Product):
    """Float32, or bfloat16, weights."""

    def __init__(self, matrices: Sequence[Matrix], dtype: torch.dtype) -> None:
        dense = torch.cat([matrix.dequantised() for matrix in matrices])
        self._weight = dense.t().contiguous().to(dtype)

    def __call__(self, rows: Tensor) -> Tensor:
        return torch.mm(rows.to(self._weight.dtype), self._weight).float()


class _FourBit(_Product):
    """Four-bit codes with a scale and a minimum for each 32 columns."""

    def __init__(self, parts: Sequence[Codes]) -> None:
        codes = torch.cat([part.codes for part in parts]).int()
        scales = torch.cat([part.scales for part in parts]).float()
        minima = torch.cat([part.minima for part in parts if part.minima is not None]).float()
        self._weight = torch.ops.aten._convert_weight_to_int4pack_for_cpu(codes, 2)
        # The kernel's zero point is in the middle of the codes: weight = scale * (code - 8) + zero.
        zeros = minima + 8 * scales
        self._scales = torch.stack([scales, zeros], -1).transpose(0, 1).contiguous().bfloat16()

    def __call__(self, rows: Tensor) -> Tensor:
        product = torch.ops.aten._weight_int4pack_mm_for_cpu(rows.bfloat16(), self._weight, 32, self._scales)
        return product.float()  # type: ignore[no-any-return]  # torch.ops is not typed


def _product(profile: NumericProfile, *matrices: Matrix) -> _Product:
    if profile is NumericProfile.FLOAT32:
        return _Dense(matrices, torch.float32)
    parts = [four_bit_codes(matrix) for matrix in matrices]
    packed = [part for part in parts if part is not None]
    if len(packed) == len(parts) and not sum(matrix.shape[0] for matrix in matrices) % _INT4_ROWS:
        return _FourBit(packed)
    return _Dense(matrices, torch.bfloat16)


class _Layer:
    """One layer's weights and how they act on rows."""

    def __init__(self, weights: LayerWeights, config: ModelConfig, profile: NumericProfile) -> None:
        epsilon = config.norm_epsilon
        self._config = config
        self._attention_norm = RmsNorm(weights.attention_norm, epsilon)
        self._query_key_value = _product(profile, weights.query, weights.key, weights.value)
        biases = [weights.query_bias, weights.key_bias, weights.value_bias]
        self._bias = torch.cat([bias for bias in biases if bias is not None]) if config.qkv_bias else None
        self._query_norm = None if weights.query_norm is None else RmsNorm(weights.query_norm, epsilon)
        self._key_norm = None if weights.key_norm is None else RmsNorm(weights.key_norm, epsilon)
        self._attention_output = _product(profile, weights.attention_output)
        self._feed_forward_norm = RmsNorm(weights.feed_forward_norm, epsilon)
        self._gate_up = _product(profile, weights.gate, weights.up)
        self._down = _product(profile, weights.down)

    def __call__(
        self, rows: Tensor, rotation: Tensor, segments: Sequence[Segment], cache: PagedCache, index: int
    ) -> Tensor:
        heads = self._heads(self._attention_norm(rows), rotation)
        mixed, at = [], 0
        for segment in segments:
            mixed.append(self._attend(heads[at : at + segment.length], segment, cache, index))
            at += segment.length
        rows = rows + self._attention_output(torch.cat(mixed))
        gate, up = self._gate_up(self._feed_forward_norm(rows)).chunk(2, dim=-1)
        return rows + self._down(functional.silu(gate).mul_(up))

    def _heads(self, rows: Tensor, rotation: Tensor) -> Tensor:
        """Queries, keys and values [count, heads + 2 * kv_heads, head_size], rotated."""
        config = self._config
        query_key_value = self._query_key_value(rows)
        if self._bias is not None:
            query_key_value += self._bias
        heads = query_key_value.view(len(rows), -1, config.head_size)
        if self._query_norm is not None and self._key_norm is not None:
            queries, keys = heads[:, : config.heads], heads[:, config.heads :][:, : config.kv_heads]
            queries.copy_(self._query_norm(queries))
            keys.copy_(self._key_norm(keys))
        turned = heads[:, : config.heads + config.kv_heads]
        torch.view_as_complex(torch.unflatten(turned, -1, (-1, 2))).mul_(rotation)
        return heads

    def _attend(self, heads: Tensor, segment: Segment, cache: PagedCache, index: int) -> Tensor:
        config, (state, first, count) = self._config, segment
        cache.write(state, index, first, *heads[:, config.heads :].chunk(2, dim=1))
        keys = cache.keys(state, index, first + count).float()[None]
        values = cache.values(state, index, first + count).float()[None]
        # The query heads of a group see the same keys: they become further rows of one head.
        queries = heads[:, : config.heads].transpose(0, 1).reshape(1, config.kv_heads, -1, config.head_size)
        mask = None
        if count > 1:
            seen = torch.ones(count, first + count, dtype=torch.bool).tril_(first)
            mask = seen.repeat(config.heads // config.kv_heads, 1)
        mixed = functional.scaled_dot_product_attention(queries, keys, values, attn_mask=mask)
        return mixed.view(config.heads, count, -1).transpose(0, 1).reshape(count, -1)


class TorchLayers(LayersBackend):
    """Layers in float32, or with the packed weights of the file."""

    stability = Stability(batch=False, chunks=False, threads=False)
    """None: products are cut differently for each number of rows, and past some positions for each
    number of threads."""

    def __init__(self, config: ModelConfig, layers: Iterable[LayerWeights], profile: NumericProfile) -> None:
        self.profile = profile
        self.name = _name(profile)
        self.cache_dtype = torch.float32 if profile is NumericProfile.FLOAT32 else torch.float16
        self._layers = [_Layer(weights, config, profile) for weights in layers]
        self._rotary = Rotary(config)

    def run(self, rows: Tensor, segments: Sequence[Segment], cache: PagedCache) -> Tensor:
        table = self._rotary.single(max(segment.first + segment.length for segment in segments))
        rotation = torch.cat([table[s.first : s.first + s.length] for s in segments])[:, None, :]
        with torch.inference_mode():
            for index, layer in enumerate(self._layers):
                rows = layer(rows, rotation, segments, cache, index)
        return rows


class TorchHead(HeadBackend):
    """Embedding and head; both are kept [width, vocabulary] in float32, and a tied pair once."""

    def __init__(self, config: ModelConfig, weights: HeadWeights, profile: NumericProfile) -> None:
        self.profile = profile
        self.name = _name(profile)
        self._norm = RmsNorm(weights.norm, config.norm_epsilon)
        self._embedding = weights.embedding.dequantised().t().contiguous()
        is_tied = weights.head is weights.embedding
        self._head = self._embedding if is_tied else weights.head.dequantised().t().contiguous()

    def embed(self, token_ids: Sequence[int]) -> Tensor:
        with torch.inference_mode():
            return self._embedding.index_select(1, torch.tensor(token_ids)).t().contiguous()

    def logits(self, rows: Tensor) -> Tensor:
        with torch.inference_mode():
            return torch.mm(self._norm(rows), self._head)


def _name(profile: NumericProfile) -> str:
    return "torch, float32" if profile is NumericProfile.FLOAT32 else "torch, four-bit and bfloat16 weights"
