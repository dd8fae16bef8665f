"""Layers of the Llama family in float32: RMSNorm, rotary attention with grouped queries, SwiGLU.

Weights are kept transposed, [inputs, outputs]. A decode step multiplies one row by each matrix and
is bound by memory, and torch goes through a layer 1.3 times as fast that way, and through the head
1.7 times, as by dot products with the file's own rows; for prefill the two are equal. Query, key and
value share one matrix, as do gate and up: a call less, and a longer run through memory.

The two values that a rotation turns lie side by side (``weights`` sees to it), so that rotation is
one complex multiplication in place.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from odsi_proto.kernels.config import ModelConfig
from odsi_proto.kernels.weights import LayerWeights, Matrix


class RmsNorm:
    """x / sqrt(mean(x^2) + epsilon) * weight, for each row.

    Written as x * (weight * sqrt(n)) / hypot(|x|, sqrt(n * epsilon)), which is the same in four
    calls instead of six.
    """

    def __init__(self, weight: Tensor, epsilon: float) -> None:
        width = weight.numel()
        self._weight = weight * math.sqrt(width)
        self._floor = torch.tensor(math.sqrt(width * epsilon))

    def __call__(self, rows: Tensor) -> Tensor:
        length = torch.linalg.vector_norm(rows, dim=-1, keepdim=True)
        return (rows * self._weight).div_(torch.hypot(length, self._floor))


@dataclass(frozen=True, slots=True)
class Positions:
    """What all layers share in one run over ``count`` positions from ``first``."""

    first: int
    count: int
    rotation: Tensor
    """Complex numbers [count, 1, head_size / 2], as long as the model's magnitude."""
    mask: Tensor | None
    """True where a query may look, [group * count, end]; None for a single position, which sees all."""

    @property
    def end(self) -> int:
        return self.first + self.count


class Rotary:
    """The rotation of each position; angles are float64, so that position 8,000 is as exact as 1."""

    def __init__(self, config: ModelConfig) -> None:
        exponents = torch.arange(0, config.head_size, 2, dtype=torch.float64) / config.head_size
        self._frequencies = config.rope_base**-exponents
        if config.rope_divisors is not None:
            self._frequencies /= torch.tensor(config.rope_divisors, dtype=torch.float64)
        self._magnitude = config.rope_magnitude
        self._group = config.heads // config.kv_heads

    def positions(self, first: int, count: int) -> Positions:
        angles = torch.outer(torch.arange(first, first + count, dtype=torch.float64), self._frequencies)
        lengths = torch.full_like(angles, self._magnitude)
        rotation = torch.polar(lengths, angles).to(torch.complex64)[:, None, :]
        mask = None
        if count > 1:
            mask = torch.ones(count, first + count, dtype=torch.bool).tril_(first).repeat(self._group, 1)
        return Positions(first, count, rotation, mask)


class LlamaLayer:
    """One layer's weights and how they act on rows."""

    def __init__(self, weights: LayerWeights, config: ModelConfig) -> None:
        epsilon = config.norm_epsilon
        self._config = config
        self._attention_norm = RmsNorm(weights.attention_norm, epsilon)
        self._query_key_value = _transposed(weights.query, weights.key, weights.value)
        biases = [weights.query_bias, weights.key_bias, weights.value_bias]
        self._bias = torch.cat([bias for bias in biases if bias is not None]) if config.qkv_bias else None
        self._query_norm = None if weights.query_norm is None else RmsNorm(weights.query_norm, epsilon)
        self._key_norm = None if weights.key_norm is None else RmsNorm(weights.key_norm, epsilon)
        self._attention_output = _transposed(weights.attention_output)
        self._feed_forward_norm = RmsNorm(weights.feed_forward_norm, epsilon)
        self._gate_up = _transposed(weights.gate, weights.up)
        self._down = _transposed(weights.down)

    def __call__(self, rows: Tensor, cache: Tensor, positions: Positions) -> Tensor:
        """The rows after this layer.

        Their keys and values are written to ``cache`` [2 * kv_heads, positions, head_size].
        """
        mixed = self._attend(self._attention_norm(rows), cache, positions)
        rows = torch.addmm(rows, mixed, self._attention_output)
        gate, up = torch.mm(self._feed_forward_norm(rows), self._gate_up).chunk(2, dim=-1)
        return torch.addmm(rows, functional.silu(gate).mul_(up), self._down)

    def _attend(self, rows: Tensor, cache: Tensor, positions: Positions) -> Tensor:
        config, count = self._config, positions.count
        query_key_value = torch.mm(rows, self._query_key_value)
        if self._bias is not None:
            query_key_value += self._bias
        by_head = query_key_value.view(count, -1, config.head_size)
        if self._query_norm is not None and self._key_norm is not None:
            queries, keys = by_head[:, : config.heads], by_head[:, config.heads :][:, : config.kv_heads]
            queries.copy_(self._query_norm(queries))
            keys.copy_(self._key_norm(keys))
        turned = query_key_value[:, : (config.heads + config.kv_heads) * config.head_size]
        torch.view_as_complex(turned.view(count, -1, config.head_size // 2, 2)).mul_(positions.rotation)
        heads = by_head.transpose(0, 1)
        cache[:, positions.first : positions.end] = heads[config.heads :]
        keys, values = cache[None, :, : positions.end].chunk(2, dim=1)
        # The query heads of a group see the same keys: they become further rows of one head.
        queries = heads[: config.heads].reshape(1, config.kv_heads, -1, config.head_size)
        mixed = functional.scaled_dot_product_attention(queries, keys, values, attn_mask=positions.mask)
        return mixed.view(config.heads, count, -1).transpose(0, 1).reshape(count, -1)


def _transposed(*matrices: Matrix) -> Tensor:
    return torch.cat([matrix.dequantised() for matrix in matrices]).t().contiguous()
