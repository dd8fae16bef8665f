"""Our engine as a runner: whole or cut into stages, and many requests at once."""

import copy
import ctypes
import time
from collections.abc import Sequence

import torch
from torch import Tensor

from bench.kernels.workload import Workload, tokens_drawn
from odsi_proto.kernels.backend import LayersBackend
from odsi_proto.kernels.codecs import decode_rows, encode_rows
from odsi_proto.kernels.engine import StageEngine, StageStep
from odsi_proto.kernels.head import ClientModel
from odsi_proto.kernels.hyperparameters import read_config
from odsi_proto.kernels.native import NativeLayers
from odsi_proto.kernels.select import BackendKind
from odsi_proto.kernels.source import ModelSource
from odsi_proto.kernels.torch_layers import TorchLayers
from odsi_proto.routing.path import even_cuts
from odsi_proto.units import LayerRange
from odsi_proto.wire.tensor import ActivationCodec, NumericProfile

REQUEST = bytes(16)


class OwnRunner:
    """A client and stages in this process; with a codec, rows cross every cut as they would on a wire."""

    def __init__(
        self, client: ClientModel, engines: Sequence[StageEngine], codec: ActivationCodec | None = None
    ) -> None:
        self.client = client
        self.engines = engines
        self.codec = codec

    @classmethod
    def load(
        cls,
        source: ModelSource,
        workload: Workload,
        profile: NumericProfile,
        backend: BackendKind | None = None,
    ) -> "OwnRunner":
        """One stage on one thread; raises what ``StageEngine.load`` raises."""
        config = read_config(source)
        # Whole blocks of 16 positions for each request of the largest batch, or for the longest request.
        positions = max(
            workload.positions_max, max(workload.batches) * (workload.context + workload.batch_tokens + 16)
        )
        engine = StageEngine.load(
            source,
            None,
            LayerRange(0, config.layers_count),
            profile=profile,
            backend=backend,
            kv_bytes_max=(positions + 16) * config.layers_count * config.kv_bytes_per_layer,
        )
        return cls(ClientModel.load(source, None, profile=profile, backend=backend), [engine])

    def cut(self, stages: int, codec: ActivationCodec) -> "OwnRunner":
        """The same in even stages, with the weights where they are.

        Weights that are loaded again lie in other pages, and that alone made three stages a fifth
        faster than one.
        """
        (whole,) = self.engines
        engines = [
            StageEngine(
                whole.config,
                layers,
                _part(whole.backend, layers),
                whole.choice,
                whole.kv_bytes_max * len(layers) // len(whole.layers),
            )
            for layers in even_cuts(whole.config.layers_count, stages)
        ]
        return OwnRunner(self.client, engines, codec)

    @property
    def backend(self) -> str:
        """What computes."""
        return self.engines[0].choice.kind.value

    def start(self, positions: int) -> None:
        for engine in self.engines:
            engine.open(REQUEST, positions)

    def feed(self, token_ids: Sequence[int]) -> Tensor:
        rows = self.client.embed(token_ids)
        first = self.engines[0].positions_held(REQUEST)
        if self.codec is None:
            for engine in self.engines:
                rows = engine.run(REQUEST, first, rows)
            return self.client.logits(rows[-1])
        payload = encode_rows(self.codec, rows)
        for engine in self.engines:
            payload = engine.step(
                REQUEST,
                first_position=first,
                payload=memoryview(payload),
                codec_in=self.codec,
                codec_out=self.codec,
                rows_out_max=1 if engine is self.engines[-1] else len(token_ids),
            )
        return self.client.logits(decode_rows(self.codec, memoryview(payload), self.client.config.width))

    def end(self) -> None:
        for engine in self.engines:
            engine.close(REQUEST)


def _part(backend: LayersBackend, layers: LayerRange) -> LayersBackend:
    """A backend of some of the layers; the benchmark alone needs one, so it reaches inside."""
    part = copy.copy(backend)
    match part:
        case NativeLayers():
            structures = part._layers[layers.first : layers.end]
            part._layers = (part._layers._type_ * len(layers))(*structures)
            part._stage = type(part._stage).from_buffer_copy(part._stage)
            part._stage.layers = ctypes.addressof(part._layers)
            part._stage.layers_count = len(layers)
        case TorchLayers():
            part._layers = part._layers[layers.first : layers.end]
        case _:
            raise AssertionError(f"{backend.name} is not measured in stages")
    return part


class Crowd:
    """``count`` requests that decode together: one batch through the layers, one call of the head."""

    def __init__(self, runner: OwnRunner, count: int, workload: Workload) -> None:
        self._client = runner.client
        (self._engine,) = runner.engines
        self._context = workload.context
        self._tokens = workload.batch_tokens
        self._requests = [index.to_bytes(16, "big") for index in range(1, count + 1)]
        vocabulary = runner.client.config.vocabulary
        self._drawn = [
            tokens_drawn(self._context + self._tokens, vocabulary, seed) for seed in range(1, count + 1)
        ]
        """Of each request; none shares a block with another."""

    def sample(self) -> float:
        """Tokens per second of all requests together."""
        try:
            for request, token_ids in zip(self._requests, self._drawn, strict=True):
                self._engine.open(request, self._context + self._tokens)
                self._engine.run(request, 0, self._client.embed(token_ids[: self._context]))
            started_s = time.perf_counter()
            for position in range(self._context, self._context + self._tokens):
                rows = self._client.embed([token_ids[position] for token_ids in self._drawn])
                steps = [
                    StageStep(request, position, row[None])
                    for request, row in zip(self._requests, rows, strict=True)
                ]
                self._client.logits_of(torch.cat(self._engine.run_batch(steps)))
            return len(self._requests) * self._tokens / (time.perf_counter() - started_s)
        finally:
            for request in self._requests:
                if self._engine.is_open(request):
                    self._engine.close(request)
