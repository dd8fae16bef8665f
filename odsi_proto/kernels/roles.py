"""The tensors that each role must find.

A missing tensor, one of another shape and one that would be left out of the computation are all
errors, because each would otherwise end in fluent nonsense.
"""

from collections.abc import Iterable

from odsi_proto.kernels.architectures import ARCHITECTURES
from odsi_proto.kernels.architectures.base import Shapes
from odsi_proto.kernels.config import ModelConfig
from odsi_proto.kernels.source import COMPUTED_TYPES, EMBEDDING, FINAL_NORM, HEAD, ROPE_FACTORS, ModelSource
from odsi_proto.units import LayerRange


def check_layers(source: ModelSource, config: ModelConfig, layers: LayerRange) -> tuple[str, ...]:
    """The names of the tensors that running ``layers`` needs, each found and checked."""
    if layers.end > config.layers_count:
        source.fail(f"layers {layers} asked for, the model has {config.layers_count}")
    template = ARCHITECTURES[config.architecture].layer(config)
    expected = {
        f"blk.{index}.{name}": shape
        for index in range(layers.first, layers.end)
        for name, shape in template.items()
    }
    if config.rope_factors:
        expected[ROPE_FACTORS] = (config.head_size // 2,)
    prefixes = tuple(f"blk.{index}." for index in range(layers.first, layers.end))
    _check(source, expected, (name for name in source.tensors if name.startswith(prefixes)))
    return tuple(expected)


def check_client(source: ModelSource, config: ModelConfig) -> tuple[str, ...]:
    """The names of the tensors that embedding and head need, each found and checked.

    Tensors that are no stage's either, such as those of a layer past the last, are errors too.
    """
    table = (config.vocabulary, config.width)
    expected = {EMBEDDING: table, FINAL_NORM: (config.width,)}
    if not config.tied_head:
        expected[HEAD] = table
    stages = {f"blk.{index}" for index in range(config.layers_count)}
    shared = {ROPE_FACTORS} if config.rope_factors else set()
    present = (
        name for name in source.tensors if name not in shared and ".".join(name.split(".")[:2]) not in stages
    )
    _check(source, expected, present)
    return tuple(expected)


def _check(source: ModelSource, expected: Shapes, present: Iterable[str]) -> None:
    for name, shape in expected.items():
        info = source.tensors.get(name)
        if info is None:
            source.fail(f"tensor {name} is missing, expected shape {_shape(shape)}")
        if info.shape != shape:
            source.fail(f"tensor {name} has shape {_shape(info.shape)}, expected {_shape(shape)}")
        if info.type.name not in COMPUTED_TYPES:
            known = ", ".join(COMPUTED_TYPES)
            source.fail(f"tensor {name} has type {info.type.name}, expected one of {known}")
    for name in present:
        if name not in expected:
            source.fail(
                f"tensor {name} has no place in this architecture; leaving it out would change the answers"
            )


def _shape(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))
