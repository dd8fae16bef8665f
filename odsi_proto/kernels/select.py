"""Which backend computes a profile here, and why: said plainly, because it decides how fast a node is."""

from collections.abc import Iterable
from enum import Enum
from pathlib import Path
from typing import NamedTuple

from odsi_proto.errors import ConfigError
from odsi_proto.kernels import native
from odsi_proto.kernels.backend import HeadBackend, LayersBackend
from odsi_proto.kernels.config import ModelConfig
from odsi_proto.kernels.reference import ReferenceHead, ReferenceLayers
from odsi_proto.kernels.torch_layers import TorchHead, TorchLayers
from odsi_proto.kernels.weights import HeadWeights, LayerWeights
from odsi_proto.wire.tensor import NumericProfile


class BackendKind(Enum):
    """The ways to compute layers."""

    NATIVE = "native"
    TORCH = "torch"
    REFERENCE = "reference"
    """Only when it is asked for: the oracle of the tests."""


class Choice(NamedTuple):
    """A backend, and in one line why not the faster one."""

    kind: BackendKind
    reason: str


def select(
    config: ModelConfig,
    profile: NumericProfile,
    wanted: BackendKind | None = None,
    *,
    library_path: Path = native.LIBRARY,
) -> Choice:
    """The fastest backend that runs ``config`` in ``profile`` here, or ``wanted``.

    Raises ``ConfigError`` if what is wanted can not be had.
    """
    missing = native.why_not(config, profile, library_path)
    match wanted:
        case None:
            return Choice(BackendKind.NATIVE if missing is None else BackendKind.TORCH, missing or "")
        case BackendKind.NATIVE if missing is not None:
            raise ConfigError(f"the native backend can not be used: {missing}")
        case BackendKind.REFERENCE if profile is not NumericProfile.FLOAT32:
            raise ConfigError("the reference backend computes the FLOAT32 profile only")
        case _:
            return Choice(wanted, "asked for")


def make_layers(
    choice: Choice,
    config: ModelConfig,
    layers: Iterable[LayerWeights],
    profile: NumericProfile,
    *,
    threads: int,
) -> LayersBackend:
    """The chosen backend, with its weights as it wants them."""
    match choice.kind:
        case BackendKind.NATIVE:
            return native.NativeLayers(config, layers, profile, threads=threads)
        case BackendKind.TORCH:
            return TorchLayers(config, layers, profile)
        case BackendKind.REFERENCE:
            return ReferenceLayers(config, layers)


def make_head(
    choice: Choice, config: ModelConfig, weights: HeadWeights, profile: NumericProfile, *, threads: int
) -> HeadBackend:
    """The same for the client's matrices."""
    match choice.kind:
        case BackendKind.NATIVE:
            return native.NativeHead(config, weights, profile, threads=threads)
        case BackendKind.TORCH:
            return TorchHead(config, weights, profile)
        case BackendKind.REFERENCE:
            return ReferenceHead(config, weights)
