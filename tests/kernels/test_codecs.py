"""Activation rows to bytes and back: sizes, exactness, scaling, and what has no encoding."""

import struct

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from odsi_proto.errors import Malformed, ModelError
from odsi_proto.kernels.codecs import EXPONENT_MAX, EXPONENT_MIN, F16_MAX, decode_rows, encode_rows
from odsi_proto.wire.tensor import ActivationCodec, ActivationLayout

F32, F16 = ActivationCodec.F32, ActivationCodec.F16

LARGEST = F16_MAX * 2.0**EXPONENT_MAX
"""The largest value that f16 rows hold."""

floats = st.floats(-LARGEST, LARGEST, width=32)


@st.composite
def tables(draw: st.DrawFn, values: st.SearchStrategy[float] = floats) -> Tensor:
    """A few rows of one width."""
    width = draw(st.integers(1, 9))
    rows = draw(st.lists(st.lists(values, min_size=width, max_size=width), min_size=1, max_size=5))
    return torch.tensor(rows, dtype=torch.float32)


def through(codec: ActivationCodec, rows: Tensor) -> Tensor:
    return decode_rows(codec, memoryview(bytes(encode_rows(codec, rows))), rows.shape[1])


def exponents(payload: bytes, width: int) -> list[int]:
    """The exponent before each f16 row."""
    return [struct.unpack_from("<h", payload, at)[0] for at in range(0, len(payload), 2 + 2 * width)]


@given(tables())
def test_f32_is_exact(rows: Tensor) -> None:
    assert torch.equal(through(F32, rows), rows)


@given(tables(), st.sampled_from(ActivationCodec))
def test_a_payload_has_the_size_that_its_layout_says(rows: Tensor, codec: ActivationCodec) -> None:
    layout = ActivationLayout(codec=codec, width=rows.shape[1])
    assert len(encode_rows(codec, rows)) == layout.payload_bytes(len(rows))


@given(tables(st.floats(-F16_MAX, F16_MAX, width=32)))
def test_f16_of_rows_that_fit_is_plain_binary16_after_two_zero_bytes(rows: Tensor) -> None:
    expected = b"".join(b"\0\0" + struct.pack(f"<{len(row)}e", *row) for row in rows.half().tolist())
    assert bytes(encode_rows(F16, rows)) == expected


@given(tables())
def test_f16_errs_by_at_most_half_a_step_of_the_scaled_row(rows: Tensor) -> None:
    payload = bytes(encode_rows(F16, rows))
    scale = torch.tensor([2.0**e for e in exponents(payload, rows.shape[1])], dtype=torch.float64)[:, None]
    error = (through(F16, rows).double() - rows.double()).abs()
    assert bool((error <= rows.double().abs() * 2**-11 + scale * 2**-25).all())


@given(tables())
def test_f16_scales_by_the_smallest_power_of_two_that_fits(rows: Tensor) -> None:
    for row, exponent in zip(rows, exponents(bytes(encode_rows(F16, rows)), rows.shape[1]), strict=True):
        peak = float(row.abs().max())
        assert peak <= F16_MAX * 2.0**exponent
        assert exponent == 0 or peak > F16_MAX * 2.0 ** (exponent - 1)


@given(tables())
def test_f16_of_what_came_as_f16_changes_nothing(rows: Tensor) -> None:
    once = through(F16, rows)
    assert torch.equal(through(F16, once), once)


@pytest.mark.parametrize(
    ("peak", "exponent"),
    [(F16_MAX, 0), (65_504.004, 1), (65_520.0, 1), (2 * F16_MAX, 1), (131_008.02, 2), (LARGEST, 112)],
)
def test_the_exponent_steps_where_binary16_ends(peak: float, exponent: int) -> None:
    assert exponents(bytes(encode_rows(F16, torch.tensor([[1.0, -peak]]))), 2) == [exponent]


def test_each_row_has_its_own_exponent() -> None:
    rows = torch.tensor([[1.0, 2.0], [1e6, 1.0], [3.0, 4.0]])
    assert exponents(bytes(encode_rows(F16, rows)), 2) == [0, 4, 0]


def test_a_part_of_a_larger_tensor_is_encoded_as_itself() -> None:
    rows = torch.arange(24, dtype=torch.float32).view(4, 6)
    assert torch.equal(through(F32, rows[1:3, ::2]), rows[1:3, ::2])


@pytest.mark.parametrize("codec", ActivationCodec)
@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_a_value_that_is_not_finite_has_no_encoding(codec: ActivationCodec, value: float) -> None:
    rows = torch.zeros(3, 4)
    rows[1, 2] = value
    with pytest.raises(ModelError, match="row 1 of the activations has a value that is not finite"):
        encode_rows(codec, rows)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize(("codec", "form"), [(F32, "<2f"), (F16, "<xx2e")])
def test_a_payload_that_is_not_finite_is_malformed(codec: ActivationCodec, form: str, value: float) -> None:
    with pytest.raises(Malformed, match="not finite"):
        decode_rows(codec, memoryview(struct.pack(form, 1.0, value)), 2)


def test_a_row_past_what_f16_can_scale_has_no_f16_encoding() -> None:
    rows = torch.tensor([[1.0], [3.4028e38]])
    assert torch.equal(through(F32, rows), rows)
    with pytest.raises(ModelError, match="row 1 of the activations is too large for f16"):
        encode_rows(F16, rows)


@pytest.mark.parametrize("exponent", [EXPONENT_MIN, EXPONENT_MAX])
def test_exponents_up_to_the_bounds_are_taken(exponent: int) -> None:
    assert decode_rows(F16, memoryview(struct.pack("<he", exponent, 1.0)), 1).item() == 2.0**exponent


@pytest.mark.parametrize("exponent", [EXPONENT_MIN - 1, EXPONENT_MAX + 1, -(2**15), 2**15 - 1])
def test_exponents_past_the_bounds_are_malformed(exponent: int) -> None:
    with pytest.raises(Malformed, match="exponent is outside -126 to 112"):
        decode_rows(F16, memoryview(struct.pack("<he", exponent, 0.0)), 1)


@pytest.mark.parametrize("codec", ActivationCodec)
@pytest.mark.parametrize("change", [-1, 1])
def test_a_payload_of_another_size_is_malformed(codec: ActivationCodec, change: int) -> None:
    size = ActivationLayout(codec=codec, width=4).payload_bytes(2)
    with pytest.raises(Malformed, match="is not a number of rows"):
        decode_rows(codec, memoryview(bytes(size + change)), 4)


@pytest.mark.parametrize("codec", ActivationCodec)
def test_an_empty_payload_is_malformed(codec: ActivationCodec) -> None:
    with pytest.raises(Malformed, match="a payload of 0 bytes"):
        decode_rows(codec, memoryview(b""), 4)


@given(st.binary(max_size=64), st.integers(1, 8), st.sampled_from(ActivationCodec))
def test_any_bytes_are_rows_or_malformed(payload: bytes, width: int, codec: ActivationCodec) -> None:
    try:
        rows = decode_rows(codec, memoryview(payload), width)
    except Malformed:
        return
    assert rows.shape == (len(payload) // ActivationLayout(codec=codec, width=width).row_bytes, width)
    assert bool(torch.isfinite(rows).all())
