"""Layers of the Llama architecture in float32: RMSNorm, rotary attention with grouped queries, SwiGLU.

Weights are kept transposed, [inputs, outputs]. A decode step multiplies one row by each matrix and
is bound by memory, and torch goes through a layer 1.3 times as fast that way, and through the head
1.7 times, as by dot products with the file's own rows; for prefill the two are equal. Query, key and
value share one matrix, as do gate and up: a call less, and a longer run through memory.

GGUF files of this architecture store the rows of the query and key matrices so that the two values
that a rotation turns lie side by side. Taken as they are, rotation is one complex multiplication
in place, and no permutation is needed: the attention scores are the same.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from odsi_proto.kernels.config import ROPE_FACTORS, ModelConfig
from odsi_proto.kernels.gguf import GgufFile
from odsi_proto.kernels.quants import load_tensor


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
    """Unit complex numbers [count, 1, head_size / 2]."""
    mask: Tensor | None
    """True where a query may look, [group * count, end]; None for a single position, which sees all."""

    @property
    def end(self) -> int:
        return self.first + self.count


class Rotary:
    """The rotation of each position; angles are float64, so that position 8,000 is as exact as 1."""

    def __init__(self, config: ModelConfig, factors: Tensor | None) -> None:
        exponents = torch.arange(0, config.head_size, 2, dtype=torch.float64) / config.head_size
        self._frequencies = config.rope_base**-exponents
        if factors is not None:
            self._frequencies = self._frequencies / factors
        self._group = config.heads // config.kv_heads

    def positions(self, first: int, count: int) -> Positions:
        angles = torch.outer(torch.arange(first, first + count, dtype=torch.float64), self._frequencies)
        rotation = torch.polar(torch.ones_like(angles), angles).to(torch.complex64)[:, None, :]
        mask = None
        if count > 1:
            mask = torch.ones(count, first + count, dtype=torch.bool).tril_(first).repeat(self._group, 1)
        return Positions(first, count, rotation, mask)


class LlamaLayer:
    """One layer's weights and how they act on rows."""

    def __init__(self, file: GgufFile, config: ModelConfig, index: int) -> None:
        def weight(name: str) -> Tensor:
            return load_tensor(file, f"blk.{index}.{name}.weight")

        def transposed(*names: str) -> Tensor:
            return torch.cat([weight(name) for name in names]).t().contiguous()

        self._config = config
        self._attention_norm = RmsNorm(weight("attn_norm"), config.norm_epsilon)
        self._query_key_value = transposed("attn_q", "attn_k", "attn_v")
        self._attention_output = transposed("attn_output")
        self._feed_forward_norm = RmsNorm(weight("ffn_norm"), config.norm_epsilon)
        self._gate_up = transposed("ffn_gate", "ffn_up")
        self._down = transposed("ffn_down")

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
        turned = query_key_value[:, : (config.heads + config.kv_heads) * config.head_size]
        torch.view_as_complex(turned.view(count, -1, config.head_size // 2, 2)).mul_(positions.rotation)
        heads = query_key_value.view(count, -1, config.head_size).transpose(0, 1)
        cache[:, positions.first : positions.end] = heads[config.heads :]
        keys, values = cache[None, :, : positions.end].chunk(2, dim=1)
        # The query heads of a group see the same keys: they become further rows of one head.
        queries = heads[: config.heads].reshape(1, config.kv_heads, -1, config.head_size)
        mixed = functional.scaled_dot_product_attention(queries, keys, values, attn_mask=positions.mask)
        return mixed.view(config.heads, count, -1).transpose(0, 1).reshape(count, -1)


def load_rotary(file: GgufFile, config: ModelConfig) -> Rotary:
    """The rotation, with the file's own frequency divisors if it has them."""
    return Rotary(config, load_tensor(file, ROPE_FACTORS) if config.rope_factors else None)
