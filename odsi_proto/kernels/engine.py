"""A stage: some layers of a model, and the keys and values of the requests that are open on them.

Not thread-safe: one worker thread makes all calls. Weights and keys and values are float32
(``NumericProfile.FLOAT32``); how a prompt is cut in chunks may move a last bit, where a range of
layers is cut does not.
"""

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from odsi_proto.errors import CapacityError, LocalProtocolError
from odsi_proto.kernels.codecs import decode_rows, encode_rows
from odsi_proto.kernels.config import ModelConfig
from odsi_proto.kernels.hyperparameters import read_config
from odsi_proto.kernels.llama import LlamaLayer, Rotary
from odsi_proto.kernels.manifest import Progress, no_progress, verify_tensors
from odsi_proto.kernels.roles import check_layers
from odsi_proto.kernels.source import ModelSource
from odsi_proto.kernels.weights import load_layer
from odsi_proto.units import LayerRange
from odsi_proto.wire.manifest import ModelManifest
from odsi_proto.wire.tensor import ActivationCodec

KV_BYTES_MAX_DEFAULT = 1 << 30
"""A gigabyte: 22,000 positions of all 30 layers of the 135M model."""


@dataclass(slots=True)
class _RequestState:
    """One request's keys and values, [layers, 2 * kv_heads, positions_max, head_size]."""

    cache: Tensor
    positions_held: int = 0

    @property
    def positions_max(self) -> int:
        return self.cache.shape[2]


class StageEngine:
    """Runs a range of layers for many requests."""

    def __init__(
        self,
        config: ModelConfig,
        layers: LayerRange,
        weights: list[LlamaLayer],
        rotary: Rotary,
        kv_bytes_max: int,
    ) -> None:
        self.config = config
        self.layers = layers
        self.kv_bytes_max = kv_bytes_max
        self._weights = weights
        self._rotary = rotary
        self._requests: dict[bytes, _RequestState] = {}

    @classmethod
    def load(
        cls,
        source: ModelSource,
        manifest: ModelManifest | None,
        layers: LayerRange,
        *,
        threads: int = 1,
        kv_bytes_max: int = KV_BYTES_MAX_DEFAULT,
        progress: Progress = no_progress,
    ) -> Self:
        """Read, check and unpack the tensors of ``layers``, and no others; raises ``ModelError``.

        ``manifest`` is what each must be proved against; None takes the file as it is. ``threads``
        is set for the whole process, as torch has it. ``progress`` counts layers.
        """
        torch.set_num_threads(threads)
        config = read_config(source)
        names = check_layers(source, config, layers)
        if manifest is not None:
            verify_tensors(source, manifest, names)
        weights = []
        for index in range(layers.first, layers.end):
            weights.append(LlamaLayer(load_layer(source, config, index), config))
            progress(len(weights), len(layers))
        return cls(config, layers, weights, Rotary(config), kv_bytes_max)

    @property
    def kv_bytes_used(self) -> int:
        """Bytes of keys and values reserved by open requests."""
        return sum(state.cache.nbytes for state in self._requests.values())

    def kv_bytes(self, positions: int) -> int:
        """Bytes that a request of so many positions reserves."""
        return positions * len(self.layers) * self.config.kv_bytes_per_layer

    def open(self, request_id: bytes, positions_max: int) -> None:
        """Reserve room for ``positions_max`` positions.

        Raises ``CapacityError`` if they pass the model's context or the engine's memory, and
        ``LocalProtocolError`` if the request is open.
        """
        if request_id in self._requests:
            raise LocalProtocolError(f"request {request_id.hex()} is already open")
        if positions_max < 1:
            raise LocalProtocolError(f"a request of {positions_max} positions, expected at least 1")
        if positions_max > self.config.context:
            raise CapacityError(
                f"{positions_max} positions asked for, the model's context is {self.config.context}"
            )
        wanted, free = self.kv_bytes(positions_max), self.kv_bytes_max - self.kv_bytes_used
        if wanted > free:
            raise CapacityError(
                f"{positions_max} positions need {wanted} bytes of keys and values, "
                f"{free} of {self.kv_bytes_max} are free"
            )
        shape = (len(self.layers), 2 * self.config.kv_heads, positions_max, self.config.head_size)
        # Not cleared: a position is written before it is first read.
        self._requests[request_id] = _RequestState(torch.empty(shape))

    def close(self, request_id: bytes) -> None:
        """Give back what the request reserved; one that is not open is an error."""
        if self._requests.pop(request_id, None) is None:
            raise LocalProtocolError(f"request {request_id.hex()} is not open")

    def is_open(self, request_id: bytes) -> bool:
        """Whether the request has a reservation."""
        return request_id in self._requests

    def positions_held(self, request_id: bytes) -> int:
        """How many positions the request's state has."""
        return self._state(request_id).positions_held

    def run(self, request_id: bytes, first_position: int, rows: Tensor) -> Tensor:
        """Run float32 ``rows`` [count, width] through the layers, continuing at ``first_position``.

        Raises ``LocalProtocolError``, with nothing changed, if the state does not end there, if
        the rows have another width or if the reservation would be passed.
        """
        state = self._state(request_id)
        count = len(rows)
        if first_position != state.positions_held:
            raise LocalProtocolError(
                f"a step at position {first_position}, but the request holds {state.positions_held}"
            )
        if rows.shape != (count, self.config.width) or not count:
            raise LocalProtocolError(f"rows of shape {tuple(rows.shape)}, expected width {self.config.width}")
        if (end := first_position + count) > state.positions_max:
            raise LocalProtocolError(
                f"a step ends at position {end}, the request reserved {state.positions_max}"
            )
        with torch.inference_mode():
            positions = self._rotary.positions(first_position, count)
            for layer, cache in zip(self._weights, state.cache, strict=True):
                rows = layer(rows, cache, positions)
        state.positions_held += count
        return rows

    def step(
        self,
        request_id: bytes,
        *,
        first_position: int,
        payload: memoryview,
        codec_in: ActivationCodec,
        codec_out: ActivationCodec,
        rows_out_max: int,
    ) -> bytearray:
        """Decode a step's payload, run it and encode the last ``rows_out_max`` rows of the result.

        Raises ``Malformed`` for the payload, ``ModelError`` if the layers leave binary32, and what
        :meth:`run` raises. Only after ``ModelError`` has the state moved on.
        """
        if rows_out_max < 1:
            raise LocalProtocolError(f"{rows_out_max} rows asked for, expected at least 1")
        rows = self.run(request_id, first_position, decode_rows(codec_in, payload, self.config.width))
        return encode_rows(codec_out, rows[-rows_out_max:])

    def _state(self, request_id: bytes) -> _RequestState:
        state = self._requests.get(request_id)
        if state is None:
            raise LocalProtocolError(f"request {request_id.hex()} is not open")
        return state
