"""What a caller or a peer may throw at an engine: refused or computed, and the engine serves on."""

import math
from pathlib import Path

import pytest
import torch
from kernels.tiny_layers import (
    MISSING,
    VOCABULARY,
    Shape,
    head_weights,
    make_engine,
    needs_native,
    random_rows,
    run_alone,
)
from torch import Tensor

from odsi_proto.errors import CapacityError, LocalProtocolError, ModelError
from odsi_proto.kernels.codecs import encode_rows
from odsi_proto.kernels.engine import StageEngine, StageStep
from odsi_proto.kernels.gguf import GgufFile
from odsi_proto.kernels.head import ClientModel
from odsi_proto.kernels.select import BackendKind, Choice, make_head
from odsi_proto.units import LayerRange
from odsi_proto.wire.tensor import ActivationCodec, NumericProfile

FLOAT32, FAST = NumericProfile.FLOAT32, NumericProfile.FAST
CASES = [
    pytest.param((kind, profile), id=f"{kind.value} {profile.name}", marks=needs_native if native else ())
    for kind, profile, native in (
        (BackendKind.NATIVE, FLOAT32, True),
        (BackendKind.NATIVE, FAST, True),
        (BackendKind.TORCH, FLOAT32, False),
        (BackendKind.TORCH, FAST, False),
    )
]
A = b"a"
F32 = ActivationCodec.F32
SHAPE = Shape(kv_heads=4, bias=True)
"""Each head has keys of its own, so that two that differ lie in one group of 32 columns."""
ROWS = random_rows(SHAPE, 40)


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest) -> tuple[BackendKind, NumericProfile]:
    return request.param


@pytest.fixture
def engine(case: tuple[BackendKind, NumericProfile]) -> StageEngine:
    return make_engine(SHAPE, case[1], case[0], blocks=4)


def is_answered(engine: StageEngine, rows: Tensor) -> bool:
    """Whether a step of a new request, as it comes over the wire, is no ``ModelError``."""
    engine.open(A, len(rows))
    try:
        engine.step(
            A,
            first_position=0,
            payload=memoryview(encode_rows(F32, rows)),
            codec_in=F32,
            codec_out=F32,
            rows_out_max=len(rows),
        )
    except ModelError:
        return False
    finally:
        engine.close(A)
    return True


WRONG_ROWS = {
    # In main memory the native kernels took these for float32: nonsense, and writes past the end.
    "float64": ROWS[:3].double(),
    "float16": ROWS[:3].half(),
    "bfloat16": ROWS[:3].bfloat16(),
    "whole numbers": torch.ones(3, SHAPE.width, dtype=torch.int64),
    "nowhere": torch.empty(3, SHAPE.width, device="meta"),
    "one number": torch.tensor(1.0),
    "a vector": ROWS[0],
    "a stack": ROWS[None, :3],
    "a width too many": torch.zeros(3, SHAPE.width + 1),
    "no rows": ROWS[:0],
}


@pytest.mark.parametrize("rows", WRONG_ROWS.values(), ids=WRONG_ROWS)
def test_rows_of_another_kind_are_refused_and_change_nothing(engine: StageEngine, rows: Tensor) -> None:
    expected = run_alone(engine, ROWS)
    engine.open(A, 40)
    with pytest.raises(LocalProtocolError, match=f"expected (width {SHAPE.width}|float32 in main memory)"):
        engine.run(A, 0, rows)
    assert engine.positions_held(A) == 0
    assert torch.equal(engine.run(A, 0, ROWS), expected)


def test_rows_that_do_not_lie_together_are_taken_as_they_read(engine: StageEngine) -> None:
    expected = run_alone(engine, ROWS[:20])
    turned = ROWS[:20].t().contiguous().t()
    assert not turned.is_contiguous()
    assert torch.equal(run_alone(engine, turned), expected)
    assert torch.equal(run_alone(engine, ROWS.repeat_interleave(2, 0)[: 2 * 20 : 2]), expected)


def test_a_step_leaves_the_caller_his_rows(engine: StageEngine) -> None:
    given = ROWS.clone()
    run_alone(engine, given)
    assert torch.equal(given, ROWS)


def test_a_batch_of_no_steps_has_no_rows(engine: StageEngine) -> None:
    assert engine.run_batch([]) == []


def test_a_batch_with_one_step_that_can_not_be_run_changes_nothing(engine: StageEngine) -> None:
    engine.open(A, 16)
    engine.open(b"b", 16)
    steps = [StageStep(A, 0, ROWS[:2]), StageStep(b"b", 1, ROWS[:2])]
    with pytest.raises(LocalProtocolError, match="a step at position 1, but the request holds 0"):
        engine.run_batch(steps)
    with pytest.raises(LocalProtocolError, match="two steps of one request in a batch"):
        engine.run_batch([steps[0], steps[0]])
    assert engine.positions_held(A) == engine.positions_held(b"b") == 0


@pytest.mark.parametrize("position", [-1, 1, 1 << 31, 1 << 40, 1 << 70])
def test_a_step_at_no_position_of_the_request_is_refused(engine: StageEngine, position: int) -> None:
    engine.open(A, 16)
    with pytest.raises(LocalProtocolError, match=f"a step at position {position}, but the request holds 0"):
        engine.run(A, position, ROWS[:1])


def test_more_requests_than_memory_are_refused_with_numbers_and_the_others_served(
    engine: StageEngine,
) -> None:
    expected = run_alone(engine, ROWS[:16])
    for index in range(4):
        engine.open(bytes([index]), 16)
    block = engine.kv_bytes(16)
    for index in range(4, 300):
        with pytest.raises(
            CapacityError, match=f"16 positions need {block} bytes .* 0 of {4 * block} are free"
        ):
            engine.open(index.to_bytes(2, "big"), 16)
    for index in range(4):
        assert torch.equal(engine.run(bytes([index]), 0, ROWS[:16])[:1], expected[:1])
        engine.close(bytes([index]))
    assert engine.kv_bytes_used == 0


@pytest.mark.parametrize("positions", [SHAPE.context + 1, 1 << 31, 1 << 62, 1 << 70])
def test_a_request_beyond_the_context_is_refused_with_both_numbers(
    engine: StageEngine, positions: int
) -> None:
    with pytest.raises(CapacityError, match=f"{positions} positions asked for, the model's context is 256"):
        engine.open(A, positions)


def test_a_request_fills_the_context_to_the_last_position(case: tuple[BackendKind, NumericProfile]) -> None:
    engine = make_engine(SHAPE, case[1], case[0], blocks=16)
    rows = random_rows(SHAPE, SHAPE.context)
    engine.open(A, SHAPE.context)
    engine.run(A, 0, rows[:-1])
    assert bool(torch.isfinite(engine.run(A, SHAPE.context - 1, rows[-1:])).all())
    with pytest.raises(LocalProtocolError, match="a step ends at position 257, the request reserved 256"):
        engine.run(A, SHAPE.context, rows[:1])


@pytest.mark.parametrize(("spare", "opens"), [(-1, 0), (0, 1), (1, 1)])
def test_memory_is_as_many_whole_blocks_as_fit(tiny_path: Path, spare: int, opens: int) -> None:
    block = 16 * 3 * 2 * 2 * 8 * 4
    with GgufFile(tiny_path) as file:
        engine = StageEngine.load(file, None, LayerRange(0, 3), kv_bytes_max=block + spare)
    assert engine.kv_bytes_max == opens * block
    for _ in range(opens):
        engine.open(A, 16)
    with pytest.raises(
        CapacityError, match=f"1 positions need {block} bytes .* 0 of {opens * block} are free"
    ):
        engine.open(b"one more", 1)


# Numbers that leave binary32 or binary16 on the way.


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_rows_that_are_not_finite_stay_so_and_the_next_request_is_served(
    engine: StageEngine, value: float
) -> None:
    expected = run_alone(engine, ROWS)
    rows = ROWS.clone()
    rows[7, 3] = value
    assert not torch.isfinite(run_alone(engine, rows)[7:]).any(-1).any()
    assert torch.equal(run_alone(engine, ROWS), expected)


@pytest.mark.parametrize(("size", "is_finite"), [(3.2e18, True), (3.3e18, False), (3e38, False)])
def test_a_row_whose_squares_leave_binary32_is_a_model_error(
    engine: StageEngine, size: float, is_finite: bool
) -> None:
    # It was divided by infinity: finite rows, with other keys and values than the formulas have. The
    # squares of 32 numbers of 3.26e18 add up to the largest binary32 number.
    rows = ROWS.clone()
    rows[1] = size * ROWS[1].sign()
    assert is_answered(engine, rows) == is_finite


@pytest.mark.parametrize("head", [0, 1, 3])
@pytest.mark.parametrize("vector", ["key_bias", "value_bias"])
def test_keys_and_values_that_leave_binary16_are_a_model_error(
    case: tuple[BackendKind, NumericProfile], vector: str, head: int
) -> None:
    # A score that was no number counted as a small one, and a maximum passed over it.
    beyond = torch.zeros(SHAPE.kv_heads, SHAPE.head_size)
    beyond[head] = 1e5
    engine = make_engine(SHAPE, case[1], case[0], **{vector: beyond.flatten()})
    assert is_answered(engine, ROWS) == (case[1] is FLOAT32)


# The client's part.


@pytest.fixture(params=[BackendKind.NATIVE, BackendKind.TORCH], ids=["native", "torch"])
def client(request: pytest.FixtureRequest) -> ClientModel:
    if request.param is BackendKind.NATIVE and MISSING is not None:
        pytest.skip(MISSING)
    head = make_head(Choice(request.param, ""), SHAPE.config, head_weights(SHAPE), FLOAT32, threads=1)
    return ClientModel(SHAPE.config, head)


@pytest.mark.parametrize("token", [-1, VOCABULARY, 1 << 31, 1 << 40])
def test_a_token_that_the_vocabulary_has_not_is_refused(client: ClientModel, token: int) -> None:
    with pytest.raises(LocalProtocolError, match="token ids must be 0 to 260"):
        client.embed([0, token])
    assert client.embed([0, VOCABULARY - 1]).shape == (2, SHAPE.width)


@pytest.mark.parametrize("shape", [(2, 31), (2, 33), (2, 16), (64,), (1, 2, 32)])
def test_logits_of_rows_of_another_shape_are_refused(client: ClientModel, shape: tuple[int, ...]) -> None:
    # The native kernels read past the end of rows that were too short.
    with pytest.raises(LocalProtocolError, match="expected width 32"):
        client.logits_of(torch.ones(shape))


def test_logits_of_rows_in_another_number_format_are_those_of_their_values(client: ClientModel) -> None:
    expected = client.logits_of(ROWS[:3])
    assert torch.equal(client.logits_of(ROWS[:3].double()), expected)
