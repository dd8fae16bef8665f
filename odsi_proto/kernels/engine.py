"""A stage: some layers of a model, and the keys and values of the requests that are open on them.

Not thread-safe: one worker thread makes all calls. What computes is a backend (``select``); requests,
their state and what they may ask for are the same for all of them.
"""

import os
from collections.abc import Iterator, Sequence
from typing import NamedTuple, Self

import torch
from torch import Tensor

from odsi_proto.errors import CapacityError, LocalProtocolError
from odsi_proto.kernels.backend import LayersBackend, Segment, usable_threads
from odsi_proto.kernels.cache import BLOCK_POSITIONS, CacheShape, PagedCache, RequestState, StateBlock
from odsi_proto.kernels.codecs import decode_rows, encode_rows
from odsi_proto.kernels.config import ModelConfig
from odsi_proto.kernels.hyperparameters import read_config
from odsi_proto.kernels.manifest import Progress, no_progress, verify_tensors
from odsi_proto.kernels.roles import check_layers
from odsi_proto.kernels.select import BackendKind, Choice, make_layers, select
from odsi_proto.kernels.source import ModelSource
from odsi_proto.kernels.weights import LayerWeights, load_layer
from odsi_proto.units import LayerRange
from odsi_proto.wire.manifest import ModelManifest
from odsi_proto.wire.tensor import ActivationCodec, NumericProfile

KV_BYTES_MAX_DEFAULT = 1 << 30
"""A gigabyte: 23,000 positions of all 30 layers of the 135M model in float32."""


class StageStep(NamedTuple):
    """A step of one request, decoded."""

    request_id: bytes
    first_position: int
    rows: Tensor
    """float32 [count, width]."""


class StageEngine:
    """Runs a range of layers for many requests."""

    def __init__(
        self,
        config: ModelConfig,
        layers: LayerRange,
        backend: LayersBackend,
        choice: Choice,
        kv_bytes_max: int,
    ) -> None:
        self.config = config
        self.layers = layers
        self.backend = backend
        self.choice = choice
        """Why this backend."""
        shape = CacheShape(
            layers=len(layers),
            kv_heads=config.kv_heads,
            head_size=config.head_size,
            dtype=backend.cache_dtype,
        )
        self._cache = PagedCache(shape, kv_bytes_max)
        self._requests: dict[bytes, RequestState] = {}

    @classmethod
    def load(
        cls,
        source: ModelSource,
        manifest: ModelManifest | None,
        layers: LayerRange,
        *,
        profile: NumericProfile = NumericProfile.FLOAT32,
        backend: BackendKind | None = None,
        threads: int = 1,
        kv_bytes_max: int = KV_BYTES_MAX_DEFAULT,
        progress: Progress = no_progress,
    ) -> Self:
        """Read, check and unpack the tensors of ``layers``, and no others; raises ``ModelError``.

        ``manifest`` is what each must be proved against; None takes the file as it is. ``threads``
        is set for the whole process, as torch has it. ``progress`` counts layers. Raises
        ``CapacityError`` if the machine has not ``kv_bytes_max`` of memory, and ``ConfigError`` if the
        ``backend`` asked for can not be had.
        """
        _check_memory(kv_bytes_max)
        threads = usable_threads(threads)
        torch.set_num_threads(threads)
        config = read_config(source)
        names = check_layers(source, config, layers)
        choice = select(config, profile, backend)
        if manifest is not None:
            verify_tensors(source, manifest, names)

        def weights() -> Iterator[LayerWeights]:
            """One layer at a time: a backend keeps its own form, and the file's can go."""
            for done, index in enumerate(range(layers.first, layers.end), 1):
                yield load_layer(source, config, index)
                progress(done, len(layers))

        loaded = make_layers(choice, config, weights(), profile, threads=threads)
        return cls(config, layers, loaded, choice, kv_bytes_max)

    @property
    def profile(self) -> NumericProfile:
        """How the layers are computed."""
        return self.backend.profile

    @property
    def kv_bytes_max(self) -> int:
        """Memory for the keys and values of all requests."""
        return self._cache.bytes_max

    @property
    def kv_bytes_used(self) -> int:
        """Bytes of keys and values reserved by open requests."""
        return self._cache.bytes_used

    def kv_bytes(self, positions: int) -> int:
        """Bytes that a request of so many positions reserves."""
        return self._cache.bytes_for(positions)

    def open(self, request_id: bytes, positions_max: int) -> None:
        """Reserve room for ``positions_max`` positions.

        Raises ``CapacityError`` if they pass the model's context or the engine's memory, and
        ``LocalProtocolError`` if the request is open.
        """
        self._check_new(request_id, positions_max)
        self._requests[request_id] = self._cache.reserve(positions_max)

    def fork(self, request_id: bytes, new_id: bytes, positions_max: int) -> None:
        """Open ``new_id`` with the history of ``request_id``; full blocks are shared.

        Raises as :meth:`open`, and if the history does not fit.
        """
        self._check_new(new_id, positions_max)
        self._requests[new_id] = self._cache.fork(self._state(request_id), positions_max)

    def roll_back(self, request_id: bytes, position: int) -> None:
        """Forget what is at ``position`` and after it."""
        self._cache.roll_back(self._state(request_id), position)

    def close(self, request_id: bytes) -> None:
        """Give back what the request reserved; one that is not open is an error."""
        self._cache.release(self._state(request_id))
        del self._requests[request_id]

    def is_open(self, request_id: bytes) -> bool:
        """Whether the request has a reservation."""
        return request_id in self._requests

    def positions_held(self, request_id: bytes) -> int:
        """How many positions the request's state has."""
        return self._state(request_id).positions_held

    def export_state(self, request_id: bytes, first: int, end: int) -> Iterator[StateBlock]:
        """The state of positions ``first`` to ``end``, in blocks that :meth:`import_state` takes in order."""
        state = self._state(request_id)
        while first < end:
            count = min(end - first, BLOCK_POSITIONS - first % BLOCK_POSITIONS)
            yield self._cache.export(state, first, count)
            first += count

    def import_state(self, request_id: bytes, block: StateBlock) -> None:
        """Append a block to what the request holds; raises ``Malformed``, with nothing changed."""
        self._cache.take_in(self._state(request_id), block)

    def run(self, request_id: bytes, first_position: int, rows: Tensor) -> Tensor:
        """Run float32 ``rows`` [count, width] through the layers, continuing at ``first_position``.

        Raises ``LocalProtocolError``, with nothing changed, if the state does not end there, if
        the rows have another width or number format or if the reservation would be passed.
        """
        return self.run_batch([StageStep(request_id, first_position, rows)])[0]

    def run_batch(self, steps: Sequence[StageStep]) -> list[Tensor]:
        """The rows of steps of different requests, run together; raises as :meth:`run`."""
        _check_different(steps)
        segments = [self._segment(step) for step in steps]
        return self._run(steps, segments)

    def run_each(self, steps: Sequence[StageStep]) -> list[Tensor | LocalProtocolError]:
        """As :meth:`run_batch`; but a step that can not run keeps no other back, and its error is its result.

        A request that another thread closes meanwhile is such a step.
        """
        _check_different(steps)
        results: list[Tensor | LocalProtocolError] = []
        able, segments = [], []
        for step in steps:
            try:
                segments.append(self._segment(step))
            except LocalProtocolError as error:
                results.append(error)
            else:
                able.append(len(results))
                results.append(step.rows)
        for index, rows in zip(able, self._run([steps[index] for index in able], segments), strict=True):
            results[index] = rows
        return results

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

    def _run(self, steps: Sequence[StageStep], segments: Sequence[Segment]) -> list[Tensor]:
        if not steps:
            return []
        done = self.backend.run(torch.cat([step.rows for step in steps]), segments, self._cache)
        for segment in segments:
            segment.state.positions_held += segment.length
        return list(torch.split(done, [segment.length for segment in segments]))

    def _segment(self, step: StageStep) -> Segment:
        state, (_, first, rows) = self._state(step.request_id), step
        if first != state.positions_held:
            raise LocalProtocolError(
                f"a step at position {first}, but the request holds {state.positions_held}"
            )
        count = rows.shape[0] if rows.dim() == 2 else 0
        if not count or rows.shape[1] != self.config.width:
            raise LocalProtocolError(f"rows of shape {tuple(rows.shape)}, expected width {self.config.width}")
        if rows.dtype != torch.float32 or rows.device.type != "cpu":
            raise LocalProtocolError(
                f"rows of {rows.dtype} on device {rows.device}, expected float32 in main memory"
            )
        if (end := first + count) > state.positions_max:
            raise LocalProtocolError(
                f"a step ends at position {end}, the request reserved {state.positions_max}"
            )
        return Segment(state, first, count)

    def _check_new(self, request_id: bytes, positions_max: int) -> None:
        if request_id in self._requests:
            raise LocalProtocolError(f"request {request_id.hex()} is already open")
        if positions_max < 1:
            raise LocalProtocolError(f"a request of {positions_max} positions, expected at least 1")
        if positions_max > self.config.context:
            raise CapacityError(
                f"{positions_max} positions asked for, the model's context is {self.config.context}"
            )

    def _state(self, request_id: bytes) -> RequestState:
        state = self._requests.get(request_id)
        if state is None:
            raise LocalProtocolError(f"request {request_id.hex()} is not open")
        return state


def _check_different(steps: Sequence[StageStep]) -> None:
    if len({step.request_id for step in steps}) < len(steps):
        raise LocalProtocolError("two steps of one request in a batch")


def _check_memory(kv_bytes_max: int) -> None:
    """That the memory for keys and values is there: it is only touched as requests fill it."""
    whole = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if kv_bytes_max > whole:
        raise CapacityError(
            f"{kv_bytes_max} bytes of keys and values are more than this machine's memory, {whole} bytes"
        )
