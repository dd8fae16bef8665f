"""A layer's weights as every backend takes them: matrices still packed, rotary pairs side by side.

Formats store the rows of query and key in one of two orders (``config.RopePairs``). Here both
become adjacent pairs, so that a rotation is one complex multiplication whatever the file. Rows are
packed on their own in every packing, so the order of packed rows can be changed exactly; and as
query and key change alike, the attention scores stay what they were.
"""

from dataclasses import dataclass

from torch import Tensor

from odsi_proto.kernels.config import ModelConfig
from odsi_proto.kernels.quants import load_tensor, packed_rows, unpack
from odsi_proto.kernels.source import EMBEDDING, FINAL_NORM, HEAD, ModelSource


@dataclass(frozen=True, slots=True, kw_only=True)
class Matrix:
    """One packed matrix, in memory of its own."""

    type: str
    """GGML's name of the packing, such as ``Q4_1``."""
    blocks: Tensor
    """uint8 [rows, bytes of a row], as they lie in the file."""
    shape: tuple[int, int]
    """Rows and columns, that is outputs and inputs."""

    def dequantised(self) -> Tensor:
        """float32 [rows, columns]."""
        return unpack(self.type, self.blocks).view(self.shape)


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerWeights:
    """One layer. Vectors are float32."""

    attention_norm: Tensor
    query: Matrix
    key: Matrix
    value: Matrix
    query_bias: Tensor | None
    key_bias: Tensor | None
    value_bias: Tensor | None
    query_norm: Tensor | None
    """[head_size], for each query head before it is rotated."""
    key_norm: Tensor | None
    attention_output: Matrix
    feed_forward_norm: Tensor
    gate: Matrix
    up: Matrix
    down: Matrix


def load_matrix(source: ModelSource, name: str) -> Matrix:
    """Matrix ``name``, whose shape ``roles`` has checked; ``ModelError`` if its packing is not known."""
    info = source.tensors.get(name)
    blocks = packed_rows(source, name)
    assert info is not None
    rows, columns = info.shape
    return Matrix(type=info.type.name, blocks=blocks, shape=(rows, columns))


def load_layer(source: ModelSource, config: ModelConfig, index: int) -> LayerWeights:
    """The weights of layer ``index``, which ``roles.check_layers`` has found to be there."""

    def matrix(name: str) -> Matrix:
        return load_matrix(source, f"blk.{index}.{name}.weight")

    def vector(name: str) -> Tensor:
        return load_tensor(source, f"blk.{index}.{name}")

    def turned(name: str, heads: int) -> Matrix:
        """A matrix whose rows are rotated in pairs."""
        found = matrix(name)
        return Matrix(type=found.type, blocks=_adjacent(config, found.blocks, heads), shape=found.shape)

    bias, norm = config.qkv_bias, config.qk_norm
    return LayerWeights(
        attention_norm=vector("attn_norm.weight"),
        query=turned("attn_q", config.heads),
        key=turned("attn_k", config.kv_heads),
        value=matrix("attn_v"),
        query_bias=_adjacent(config, vector("attn_q.bias"), config.heads) if bias else None,
        key_bias=_adjacent(config, vector("attn_k.bias"), config.kv_heads) if bias else None,
        value_bias=vector("attn_v.bias") if bias else None,
        query_norm=_adjacent(config, vector("attn_q_norm.weight"), 1) if norm else None,
        key_norm=_adjacent(config, vector("attn_k_norm.weight"), 1) if norm else None,
        attention_output=matrix("attn_output"),
        feed_forward_norm=vector("ffn_norm.weight"),
        gate=matrix("ffn_gate"),
        up=matrix("ffn_up"),
        down=matrix("ffn_down"),
    )


def _adjacent(config: ModelConfig, rows: Tensor, heads: int) -> Tensor:
    """``rows`` of so many heads with the two rows of each rotary pair side by side."""
    if config.rope_pairs == "adjacent":
        return rows
    halves = rows.view(heads, 2, config.head_size // 2, -1)
    return halves.transpose(1, 2).reshape(rows.shape)


@dataclass(frozen=True, slots=True, kw_only=True)
class HeadWeights:
    """The client's matrices; ``head`` is ``embedding`` where a model ties them."""

    embedding: Matrix
    norm: Tensor
    head: Matrix


def load_head(source: ModelSource, config: ModelConfig) -> HeadWeights:
    """The weights that ``roles.check_client`` has found to be there."""
    embedding = load_matrix(source, EMBEDDING)
    head = embedding if config.tied_head else load_matrix(source, HEAD)
    return HeadWeights(embedding=embedding, norm=load_tensor(source, FINAL_NORM), head=head)
