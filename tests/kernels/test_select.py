"""Which backend is chosen, and that the reason can be read."""

from dataclasses import replace
from pathlib import Path

import pytest
from kernels.tiny_layers import LAYERS, Shape, head_weights, make_engine, needs_native

from odsi_proto.errors import ConfigError
from odsi_proto.kernels import native
from odsi_proto.kernels.backend import HeadBackend, LayersBackend
from odsi_proto.kernels.engine import StageEngine
from odsi_proto.kernels.gguf import GgufFile
from odsi_proto.kernels.native import NativeHead, NativeLayers
from odsi_proto.kernels.reference import ReferenceHead, ReferenceLayers
from odsi_proto.kernels.select import BackendKind, Choice, make_head, select
from odsi_proto.kernels.torch_layers import TorchHead, TorchLayers
from odsi_proto.units import LayerRange
from odsi_proto.wire.tensor import NumericProfile

FLOAT32, FAST = NumericProfile.FLOAT32, NumericProfile.FAST
NATIVE, TORCH, REFERENCE = BackendKind.NATIVE, BackendKind.TORCH, BackendKind.REFERENCE
FITS = Shape().config
NOT_BUILT = "the native kernels were not built when the package was installed: no C compiler, or it failed"


@needs_native
@pytest.mark.parametrize("profile", NumericProfile)
def test_the_native_kernels_are_chosen_where_they_run(profile: NumericProfile) -> None:
    assert select(FITS, profile) == Choice(NATIVE, "")


@pytest.mark.parametrize("profile", NumericProfile)
def test_torch_is_chosen_where_the_library_is_missing(tmp_path: Path, profile: NumericProfile) -> None:
    assert select(FITS, profile, library_path=tmp_path / "libodsi.so") == Choice(TORCH, NOT_BUILT)


def test_torch_is_chosen_where_the_library_is_something_else(tmp_path: Path) -> None:
    # It said that the processor was missing something.
    path = tmp_path / "libodsi.so"
    path.write_bytes(b"not a library")
    choice = select(FITS, FAST, library_path=path)
    assert choice.kind is TORCH
    assert choice.reason.startswith(f"the native kernels can not be loaded: {path}")
    assert "\n" not in choice.reason


@needs_native
@pytest.mark.parametrize(
    ("shape", "float32", "fast"),
    [
        (Shape(), None, None),
        (Shape(width=48), None, 32),
        (Shape(feed_forward=80), None, 32),
        (Shape(heads=3, kv_heads=3), None, 32),
        (Shape(width=40), 16, 32),
        (Shape(feed_forward=72), 16, 32),
        (Shape(head_size=8), 16, 32),
        (Shape(head_size=24), 16, 32),
    ],
    ids=lambda value: str(value) if isinstance(value, int | None) else "",
)
def test_widths_that_do_not_fill_registers_and_groups_go_to_torch(
    shape: Shape, float32: int | None, fast: int | None
) -> None:
    for profile, multiple in ((FLOAT32, float32), (FAST, fast)):
        expected = (
            Choice(NATIVE, "")
            if multiple is None
            else Choice(
                TORCH, f"the model's widths are not multiples of {multiple}, or its head size not of 16"
            )
        )
        assert select(shape.config, profile) == expected


@pytest.mark.parametrize(
    ("kind", "profile"), [(TORCH, FLOAT32), (TORCH, FAST), (REFERENCE, FLOAT32)], ids=str
)
def test_what_is_asked_for_is_chosen(kind: BackendKind, profile: NumericProfile) -> None:
    assert select(FITS, profile, kind) == Choice(kind, "asked for")


@needs_native
@pytest.mark.parametrize("profile", NumericProfile)
def test_the_native_kernels_can_be_asked_for(profile: NumericProfile) -> None:
    assert select(FITS, profile, NATIVE) == Choice(NATIVE, "asked for")


def test_native_kernels_that_are_missing_are_refused_with_the_reason(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=f"^the native backend can not be used: {NOT_BUILT}$"):
        select(FITS, FAST, NATIVE, library_path=tmp_path / "libodsi.so")


@needs_native
def test_native_kernels_for_widths_that_do_not_fit_are_refused_with_the_reason() -> None:
    with pytest.raises(ConfigError, match="can not be used: the model's widths are not multiples of 32"):
        select(replace(FITS, feed_forward_width=80), FAST, NATIVE)


def test_the_reference_computes_float32_only() -> None:
    with pytest.raises(ConfigError, match=r"^the reference backend computes the FLOAT32 profile only$"):
        select(FITS, FAST, REFERENCE)


MADE = [
    pytest.param(NATIVE, NativeLayers, NativeHead, marks=needs_native, id="native"),
    pytest.param(TORCH, TorchLayers, TorchHead, id="torch"),
    pytest.param(REFERENCE, ReferenceLayers, ReferenceHead, id="reference"),
]


@pytest.mark.parametrize(("kind", "layers", "head"), MADE)
def test_the_backend_that_is_chosen_is_made(
    kind: BackendKind, layers: type[LayersBackend], head: type[HeadBackend]
) -> None:
    engine = make_engine(Shape(), FLOAT32, kind)
    assert type(engine.backend) is layers
    assert engine.profile is FLOAT32
    assert len(engine.layers) == LAYERS
    made = make_head(engine.choice, FITS, head_weights(Shape()), FLOAT32, threads=1)
    assert type(made) is head
    assert made.name == engine.backend.name


@pytest.mark.spec("NUM-010")
@pytest.mark.parametrize("profile", NumericProfile)
def test_a_loaded_engine_has_the_profile_that_was_asked_for(tiny_path: Path, profile: NumericProfile) -> None:
    with GgufFile(tiny_path) as file:
        engine = StageEngine.load(file, None, LayerRange(0, 3), profile=profile)
    assert engine.profile is engine.backend.profile is profile
    assert engine.choice.kind is TORCH  # its heads are half a register
    assert engine.choice.reason == native.why_not(engine.config, profile)
