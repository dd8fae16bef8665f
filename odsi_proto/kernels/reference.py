"""The oracle: float64, one row, one head and one position at a time, as the formulas are written.

Slow on purpose. Every other backend is tested against it, so it shares nothing with them but the
weights and the cache.
"""

import math
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from odsi_proto.kernels.backend import HeadBackend, LayersBackend, Segment, Stability
from odsi_proto.kernels.cache import PagedCache, RequestState
from odsi_proto.kernels.config import ModelConfig
from odsi_proto.kernels.rotary import Rotary
from odsi_proto.kernels.weights import HeadWeights, LayerWeights, Matrix
from odsi_proto.wire.tensor import NumericProfile


class ReferenceLayers(LayersBackend):
    """Layers in float64."""

    name = "reference: float64, slow"
    profile = NumericProfile.FLOAT32
    stability = Stability(batch=True, chunks=True, threads=False)
    cache_dtype = torch.float64

    def __init__(self, config: ModelConfig, layers: Iterable[LayerWeights]) -> None:
        self._config = config
        self._layers = tuple(layers)
        self._rotary = Rotary(config)

    def run(self, rows: Tensor, segments: Sequence[Segment], cache: PagedCache) -> Tensor:
        places = [
            (segment.state, segment.first + offset)
            for segment in segments
            for offset in range(segment.length)
        ]
        results = [self._row(row.double(), *place, cache) for row, place in zip(rows, places, strict=True)]
        return torch.stack(results).float()

    def _row(self, row: Tensor, state: RequestState, position: int, cache: PagedCache) -> Tensor:
        epsilon = self._config.norm_epsilon
        for index, weights in enumerate(self._layers):
            normal = _normalised(row, weights.attention_norm, epsilon)
            row = row + _times(
                weights.attention_output, self._attention(normal, index, state, position, cache)
            )
            normal = _normalised(row, weights.feed_forward_norm, epsilon)
            gate, up = _times(weights.gate, normal), _times(weights.up, normal)
            row = row + _times(weights.down, gate / (1 + torch.exp(-gate)) * up)
        return row

    def _attention(
        self, normal: Tensor, index: int, state: RequestState, position: int, cache: PagedCache
    ) -> Tensor:
        config, weights = self._config, self._layers[index]
        query = self._heads(normal, weights.query, weights.query_bias, weights.query_norm, position)
        key = self._heads(normal, weights.key, weights.key_bias, weights.key_norm, position)
        value = _times(weights.value, normal, weights.value_bias).view(config.kv_heads, config.head_size)
        cache.write(state, index, position, key[None], value[None])
        keys, values = cache.keys(state, index, position + 1), cache.values(state, index, position + 1)
        group = config.heads // config.kv_heads
        mixed = []
        for head in range(config.heads):
            scores = keys[head // group] @ query[head] / math.sqrt(config.head_size)
            mixed.append(torch.softmax(scores, 0) @ values[head // group])
        return torch.cat(mixed)

    def _heads(
        self, normal: Tensor, matrix: Matrix, bias: Tensor | None, norm: Tensor | None, position: int
    ) -> Tensor:
        """Queries or keys [heads, head_size]: normalised where the model does, and rotated."""
        heads = _times(matrix, normal, bias).view(-1, self._config.head_size)
        if norm is not None:
            heads = torch.stack([_normalised(head, norm, self._config.norm_epsilon) for head in heads])
        pairs = torch.view_as_complex(heads.view(len(heads), -1, 2))
        return torch.view_as_real(pairs * self._rotary.table(position + 1)[position]).flatten(1)


class ReferenceHead(HeadBackend):
    """Embedding and head in float64."""

    name = ReferenceLayers.name
    profile = NumericProfile.FLOAT32

    def __init__(self, config: ModelConfig, weights: HeadWeights) -> None:
        self._config = config
        self._weights = weights

    def embed(self, token_ids: Sequence[int]) -> Tensor:
        return self._weights.embedding.dequantised()[list(token_ids)]

    def logits(self, rows: Tensor) -> Tensor:
        normal = [_normalised(row.double(), self._weights.norm, self._config.norm_epsilon) for row in rows]
        return torch.stack([_times(self._weights.head, row) for row in normal]).float()


def _times(matrix: Matrix, row: Tensor, bias: Tensor | None = None) -> Tensor:
    product = matrix.dequantised().double() @ row
    return product if bias is None else product + bias.double()


def _normalised(row: Tensor, weight: Tensor, epsilon: float) -> Tensor:
    return row / torch.sqrt((row * row).mean() + epsilon) * weight.double()
