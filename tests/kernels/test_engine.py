"""A stage's requests: what they reserve, in what order they run, and what is refused."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from odsi_proto.errors import CapacityError, LocalProtocolError, Malformed, ModelError
from odsi_proto.kernels.codecs import encode_rows
from odsi_proto.kernels.engine import StageEngine
from odsi_proto.kernels.gguf import GgufFile
from odsi_proto.units import LayerRange
from odsi_proto.wire.tensor import ActivationCodec

A, B = b"a" * 16, b"b" * 16
F32, F16 = ActivationCodec.F32, ActivationCodec.F16
BLOCK_BYTES = 16 * 3 * 2 * 2 * 8 * 4
"""Three layers' keys and values of two heads of eight float32, for sixteen positions."""


@pytest.fixture
def engine(tiny_path: Path) -> Iterator[StageEngine]:
    with GgufFile(tiny_path) as file:
        yield StageEngine.load(file, None, LayerRange(0, 3), kv_bytes_max=4 * BLOCK_BYTES)


def rows(count: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(count, 32, generator=torch.Generator().manual_seed(seed))


def test_loading_reports_each_layer(tiny_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    with GgufFile(tiny_path) as file:
        StageEngine.load(
            file, None, LayerRange(1, 3), progress=lambda done, total: seen.append((done, total))
        )
    assert seen == [(1, 2), (2, 2)]


def test_an_open_request_reserves_and_a_closed_one_gives_back(engine: StageEngine) -> None:
    engine.open(A, 16)
    engine.open(B, 17)
    assert engine.kv_bytes(16) == BLOCK_BYTES
    assert engine.kv_bytes_used == 3 * BLOCK_BYTES == engine.kv_bytes(16) + engine.kv_bytes(17)
    engine.close(A)
    assert engine.kv_bytes_used == 2 * BLOCK_BYTES
    engine.close(B)
    assert engine.kv_bytes_used == 0


def test_the_last_free_block_can_be_reserved_and_not_one_more(engine: StageEngine) -> None:
    engine.open(A, 48)
    engine.open(B, 16)
    engine.close(B)
    with pytest.raises(
        CapacityError,
        match=f"17 positions need {2 * BLOCK_BYTES} bytes of keys and values, "
        f"{BLOCK_BYTES} of {4 * BLOCK_BYTES} are free",
    ):
        engine.open(B, 17)
    assert engine.kv_bytes_used == 3 * BLOCK_BYTES


def test_more_memory_than_the_machine_has_is_refused_at_loading(tiny_path: Path) -> None:
    with GgufFile(tiny_path) as file, pytest.raises(CapacityError, match="more than this machine's memory"):
        StageEngine.load(file, None, LayerRange(0, 3), kv_bytes_max=1 << 60)


def test_more_positions_than_the_context_are_refused_with_both_numbers(engine: StageEngine) -> None:
    with pytest.raises(CapacityError, match="65 positions asked for, the model's context is 64"):
        engine.open(A, 65)


def test_no_positions_are_refused(engine: StageEngine) -> None:
    with pytest.raises(LocalProtocolError, match="0 positions, expected at least 1"):
        engine.open(A, 0)


def test_a_request_opens_once(engine: StageEngine) -> None:
    engine.open(A, 1)
    with pytest.raises(LocalProtocolError, match=f"request {A.hex()} is already open"):
        engine.open(A, 1)


@pytest.mark.parametrize("call", ["close", "run", "positions_held"])
def test_a_request_that_is_not_open_is_refused(engine: StageEngine, call: str) -> None:
    arguments = (0, rows(1)) if call == "run" else ()
    with pytest.raises(LocalProtocolError, match=f"request {A.hex()} is not open"):
        getattr(engine, call)(A, *arguments)


@pytest.mark.parametrize("position", [1, 3])
def test_a_step_continues_exactly_where_the_state_ends(engine: StageEngine, position: int) -> None:
    engine.open(A, 8)
    engine.run(A, 0, rows(2))
    with pytest.raises(LocalProtocolError, match=f"a step at position {position}, but the request holds 2"):
        engine.run(A, position, rows(1))
    assert engine.positions_held(A) == 2
    engine.run(A, 2, rows(1))
    assert engine.positions_held(A) == 3


def test_a_step_fills_the_reservation_and_never_passes_it(engine: StageEngine) -> None:
    engine.open(A, 4)
    with pytest.raises(LocalProtocolError, match="a step ends at position 5, the request reserved 4"):
        engine.run(A, 0, rows(5))
    engine.run(A, 0, rows(4))
    with pytest.raises(LocalProtocolError, match="a step ends at position 5, the request reserved 4"):
        engine.run(A, 4, rows(1))


@pytest.mark.parametrize("shape", [(0, 32), (1, 31), (32,)])
def test_rows_of_another_shape_are_refused(engine: StageEngine, shape: tuple[int, ...]) -> None:
    engine.open(A, 4)
    with pytest.raises(LocalProtocolError, match="expected width 32"):
        engine.run(A, 0, torch.zeros(shape))


def test_requests_do_not_see_each_other(engine: StageEngine) -> None:
    engine.open(A, 4)
    alone = [engine.run(A, 0, rows(2, seed=1)), engine.run(A, 2, rows(1, seed=2))]
    engine.close(A)
    engine.open(A, 4)
    engine.open(B, 4)
    among = [engine.run(A, 0, rows(2, seed=1))]
    engine.run(B, 0, rows(3, seed=3))
    among.append(engine.run(A, 2, rows(1, seed=2)))
    assert all(torch.equal(left, right) for left, right in zip(alone, among, strict=True))


@pytest.mark.parametrize("codec_in", ActivationCodec)
@pytest.mark.parametrize("codec_out", ActivationCodec)
def test_a_step_decodes_runs_and_encodes_its_last_rows(
    engine: StageEngine, codec_in: ActivationCodec, codec_out: ActivationCodec
) -> None:
    given = rows(3).half().float()
    engine.open(A, 3)
    expected = encode_rows(codec_out, engine.run(A, 0, given)[-2:])
    engine.open(B, 3)
    payload = memoryview(encode_rows(codec_in, given))
    found = engine.step(
        B, first_position=0, payload=payload, codec_in=codec_in, codec_out=codec_out, rows_out_max=2
    )
    assert found == expected


def test_a_step_answers_with_a_row_at_least(engine: StageEngine) -> None:
    engine.open(A, 3)
    payload = memoryview(encode_rows(F32, rows(2)))
    with pytest.raises(LocalProtocolError, match="0 rows asked for, expected at least 1"):
        engine.step(A, first_position=0, payload=payload, codec_in=F32, codec_out=F32, rows_out_max=0)
    assert engine.positions_held(A) == 0


def test_an_engine_knows_which_requests_are_open(engine: StageEngine) -> None:
    engine.open(A, 1)
    assert engine.is_open(A)
    assert not engine.is_open(B)


def test_a_malformed_payload_changes_nothing(engine: StageEngine) -> None:
    engine.open(A, 3)
    with pytest.raises(Malformed):
        engine.step(
            A, first_position=0, payload=memoryview(b"12345"), codec_in=F16, codec_out=F32, rows_out_max=1
        )
    assert engine.positions_held(A) == 0


def test_rows_that_the_layers_blow_up_are_a_model_error(engine: StageEngine) -> None:
    engine.open(A, 1)
    payload = memoryview(encode_rows(F32, torch.full((1, 32), 3e38)))
    with pytest.raises(ModelError, match="not finite"):
        engine.step(A, first_position=0, payload=payload, codec_in=F32, codec_out=F32, rows_out_max=1)
