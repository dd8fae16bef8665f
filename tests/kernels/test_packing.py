"""Packed weights as the kernels take them: the numbers of the file, or as near as is said."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from kernels.tiny_layers import VOCABULARY, Shape, head_weights, needs_native, random_matrix
from properties.profile import share
from torch import Tensor

from odsi_proto.kernels.backend import HeadBackend
from odsi_proto.kernels.packing import GROUP_COLUMNS, Codes, codes_of, four_bit_codes
from odsi_proto.kernels.select import BackendKind, Choice, make_head
from odsi_proto.kernels.source import COMPUTED_TYPES
from odsi_proto.kernels.weights import HeadWeights, Matrix
from odsi_proto.wire.tensor import NumericProfile

FLOAT32, FAST = NumericProfile.FLOAT32, NumericProfile.FAST

EXACT = ("Q4_0", "Q4_1", "Q8_0", "Q5_0")
ROUNDED = ("Q6_K", "F16", "BF16", "F32")
FOUR_BIT = ("Q4_0", "Q4_1", "Q4_K")
ROWS, COLUMNS = 37, 256


def matrix_of(packing: str, size: float = 1.0) -> Matrix:
    matrix = random_matrix(packing, ROWS, COLUMNS, torch.Generator().manual_seed(3))
    if size == 1.0:
        return matrix
    blocks = (matrix.dequantised() * size).view(torch.uint8)
    return Matrix(type="F32", blocks=blocks, shape=matrix.shape)


def weights_of(codes: Codes) -> Tensor:
    """float32 [rows, columns], by the definition in :class:`Codes`."""
    grouped = torch.unflatten(codes.codes.float(), 1, (-1, GROUP_COLUMNS))
    scales = codes.scales.float()[..., None]
    if codes.minima is None:
        return (scales * (grouped - 128)).flatten(1)
    return (scales * grouped + codes.minima.float()[..., None]).flatten(1)


def largest_of_group(matrix: Matrix) -> Tensor:
    """For each weight, the largest magnitude among the 32 that share its scale."""
    peaks = torch.unflatten(matrix.dequantised().abs(), 1, (-1, GROUP_COLUMNS)).amax(-1)
    return peaks.repeat_interleave(GROUP_COLUMNS, 1)


@pytest.mark.parametrize("packing", EXACT)
def test_codes_are_the_weights_of_the_file(packing: str) -> None:
    matrix = matrix_of(packing)
    assert torch.equal(weights_of(codes_of(matrix)), matrix.dequantised())


def test_codes_of_q4_k_err_by_the_rounding_of_scale_and_minimum_to_binary16() -> None:
    matrix = matrix_of("Q4_K")
    codes = codes_of(matrix)
    assert codes.minima is not None
    parts = 15 * codes.scales.float().abs() + codes.minima.float().abs()
    error = (weights_of(codes) - matrix.dequantised()).abs()
    assert bool((error <= parts.repeat_interleave(GROUP_COLUMNS, 1) * 2**-11).all())


@pytest.mark.parametrize("packing", ROUNDED)
@pytest.mark.parametrize("size", [1.0, 1e3, 1e-3, 1e-5, 0.0])
def test_weights_rounded_to_eight_bits_err_by_a_254th_of_the_largest_in_their_group(
    packing: str, size: float
) -> None:
    # Scales of small groups, which are few units of binary16, used to be rounded down: the largest
    # weights of such a group lost up to a seventh.
    matrix = matrix_of(packing, size)
    error = (weights_of(codes_of(matrix)) - matrix.dequantised()).abs()
    bound = largest_of_group(matrix) / 254 * (1 + 2**-10) + 2**-25
    assert bool((error <= bound).all())


@pytest.mark.parametrize("packing", COMPUTED_TYPES)
def test_only_packings_of_four_bits_have_four_bit_codes(packing: str) -> None:
    codes = four_bit_codes(matrix_of(packing))
    assert (codes is not None) == (packing in FOUR_BIT)
    assert codes is None or (codes.minima is not None and int(codes.codes.max()) == 15)


def test_every_packing_is_in_one_of_these_groups() -> None:
    assert sorted((*EXACT, *ROUNDED, "Q4_K")) == sorted(COMPUTED_TYPES)


# The same through the kernels: a head without layers.


def head_of(
    weights: HeadWeights, profile: NumericProfile, kind: BackendKind = BackendKind.NATIVE, *, threads: int = 1
) -> HeadBackend:
    torch.set_num_threads(threads)
    config = Shape(width=weights.embedding.shape[1]).config
    return make_head(Choice(kind, ""), config, weights, profile, threads=threads)


def wide(packing: str, *, tied: bool = True) -> HeadWeights:
    return head_weights(Shape(width=COLUMNS, packing=packing), tied=tied)


def dense(matrix: Matrix, profile: NumericProfile) -> Matrix:
    """The weights that the kernels compute with, in float32."""
    weights = matrix.dequantised() if profile is FLOAT32 else weights_of(codes_of(matrix))
    return Matrix(type="F32", blocks=weights.view(torch.uint8), shape=matrix.shape)


def expected_logits(weights: HeadWeights, profile: NumericProfile, rows: Tensor) -> Tensor:
    """In float64, of the weights that the kernels compute with."""
    flat = HeadWeights(embedding=weights.embedding, norm=weights.norm, head=dense(weights.head, profile))
    return head_of(flat, FLOAT32, BackendKind.REFERENCE).logits(rows)


def even_rows(count: int) -> Tensor:
    """Rows that rounding to eight bits leaves as they are: whole numbers, 127 the largest of each group."""
    generator = torch.Generator().manual_seed(5)
    rows = torch.randint(-127, 128, (count, COLUMNS), generator=generator).float()
    rows[:, ::GROUP_COLUMNS] = 127
    return rows


@needs_native
@pytest.mark.parametrize("packing", COMPUTED_TYPES)
@pytest.mark.parametrize("profile", NumericProfile)
def test_every_token_is_embedded_as_its_row_of_the_matrix(packing: str, profile: NumericProfile) -> None:
    weights = wide(packing)
    found = head_of(weights, profile).embed(range(VOCABULARY))
    assert torch.equal(found, dense(weights.embedding, profile).dequantised())


@needs_native
@pytest.mark.parametrize("packing", COMPUTED_TYPES)
@pytest.mark.parametrize("count", [1, 3, 8, 9, 21])
def test_products_of_packed_weights_are_those_of_the_numbers_they_stand_for(packing: str, count: int) -> None:
    weights = wide(packing, tied=False)
    flat = HeadWeights(embedding=weights.embedding, norm=torch.ones(COLUMNS), head=weights.head)
    rows = even_rows(count)
    found = head_of(flat, FAST).logits(rows)
    expected = expected_logits(flat, FAST, rows)
    assert found.shape == (count, VOCABULARY)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


@needs_native
@pytest.mark.parametrize("packing", COMPUTED_TYPES)
@pytest.mark.parametrize("kind", [BackendKind.NATIVE, BackendKind.TORCH])
@pytest.mark.parametrize("tied", [True, False], ids=["tied", "a head of its own"])
def test_float32_logits_are_those_of_the_reference(packing: str, kind: BackendKind, tied: bool) -> None:
    weights, rows = wide(packing, tied=tied), even_rows(3) / 50
    found = head_of(weights, FLOAT32, kind).logits(rows)
    expected = expected_logits(weights, FLOAT32, rows)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


@needs_native
@given(st.integers(1, 40), st.integers(1, 6), st.sampled_from(["F32", "Q4_1", "Q8_0"]))
@share(30)
def test_matrices_of_any_number_of_rows_are_padded_and_nothing_shows(
    rows: int, groups: int, packing: str
) -> None:
    generator = torch.Generator().manual_seed(rows)
    columns = groups * GROUP_COLUMNS
    matrix = random_matrix(packing, rows, columns, generator)
    weights = HeadWeights(embedding=matrix, norm=torch.ones(columns), head=matrix)
    given_rows = torch.randn(5, columns, generator=generator)
    for profile, tolerance in ((FLOAT32, 1e-5), (FAST, 0.1)):
        found = head_of(weights, profile).logits(given_rows)
        expected = expected_logits(weights, FLOAT32, given_rows)
        torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance)


@needs_native
@pytest.mark.parametrize("profile", NumericProfile)
def test_logits_are_the_same_with_one_thread_and_with_two(profile: NumericProfile) -> None:
    weights, rows = wide("Q4_1"), even_rows(11)
    one, two = (head_of(weights, profile, threads=threads).logits(rows) for threads in (1, 2))
    assert torch.equal(one, two)
