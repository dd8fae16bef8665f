"""An output row keeps its bits under each change that its backend declares harmless; no other is tested."""

from collections.abc import Callable, Sequence
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from kernels.tiny_layers import (
    MISSING,
    Shape,
    make_engine,
    needs_native,
    random_rows,
    run_alone,
    run_among,
    run_in_steps,
)
from properties.profile import share
from torch import Tensor

from odsi_proto.kernels.backend import Stability
from odsi_proto.kernels.engine import StageEngine, StageStep
from odsi_proto.kernels.gguf import GgufFile
from odsi_proto.kernels.head import ClientModel
from odsi_proto.kernels.native import NativeLayers
from odsi_proto.kernels.reference import ReferenceLayers
from odsi_proto.kernels.select import BackendKind
from odsi_proto.kernels.torch_layers import TorchLayers
from odsi_proto.units import LayerRange
from odsi_proto.wire.tensor import NumericProfile

FLOAT32, FAST = NumericProfile.FLOAT32, NumericProfile.FAST

SHAPE = Shape(heads=10, kv_heads=2, norm=True)
"""Five heads share keys, so that the kernels work on two rows of a request together."""
COUNT = 60
"""Three blocks of positions and a part of one."""
ROWS = random_rows(SHAPE, COUNT)

Case = tuple[BackendKind, NumericProfile]

DECLARED: dict[Case, Stability] = {
    **(
        {(BackendKind.NATIVE, profile): NativeLayers.stability for profile in NumericProfile}
        if MISSING is None
        else {}
    ),
    **{(BackendKind.TORCH, profile): TorchLayers.stability for profile in NumericProfile},
    (BackendKind.REFERENCE, FLOAT32): ReferenceLayers.stability,
}


def declaring(holds: Callable[[Stability], bool]) -> pytest.MarkDecorator:
    """The test runs for every backend that declares this of itself."""
    cases = [case for case, stability in DECLARED.items() if holds(stability)]
    ids = [f"{kind.value} {profile.name}" for kind, profile in cases]
    return pytest.mark.parametrize("case", cases, ids=ids, scope="module")


@pytest.fixture(scope="module")
def engine(case: Case) -> StageEngine:
    kind, profile = case
    return make_engine(SHAPE, profile, kind, blocks=256)


@pytest.fixture(scope="module")
def expected(engine: StageEngine) -> Tensor:
    """The rows of one prefill, alone."""
    return run_alone(engine, ROWS)


@declaring(lambda stability: stability.batch)
@pytest.mark.parametrize("company", [1, 2, 7, 16])
def test_a_row_is_the_same_alone_and_among_other_requests(engine: StageEngine, company: int) -> None:
    sizes = [1, 20, 2, 16, 21]
    assert torch.equal(run_among(engine, ROWS, sizes, company), run_alone(engine, ROWS, sizes))


@declaring(lambda stability: stability.batch)
def test_requests_whose_positions_follow_each_other_are_not_taken_for_one(engine: StageEngine) -> None:
    # The kernels work on neighbouring rows of one request together, and know them by their positions.
    rows = [random_rows(SHAPE, held + 1, seed=held) for held in range(1, 9)]
    names = [b"holds %d" % len(own) for own in rows]
    for name, own in zip(names, rows, strict=True):
        engine.open(name, len(own))
        engine.run(name, 0, own[:-1])
    found = engine.run_batch(
        [StageStep(name, len(own) - 1, own[-1:]) for name, own in zip(names, rows, strict=True)]
    )
    for name in names:
        engine.close(name)
    expected = [run_alone(engine, own, [len(own) - 1, 1])[-1:] for own in rows]
    assert torch.equal(torch.cat(found), torch.cat(expected))


@declaring(lambda stability: stability.chunks)
def test_a_row_is_the_same_token_by_token_and_at_once(engine: StageEngine, expected: Tensor) -> None:
    assert torch.equal(run_alone(engine, ROWS, [1] * COUNT), expected)


@declaring(lambda stability: stability.chunks)
def test_a_row_is_the_same_however_the_prompt_is_cut(engine: StageEngine, expected: Tensor) -> None:
    @given(st.sets(st.integers(1, COUNT - 1)))
    @share(10)
    def holds(cuts: set[int]) -> None:
        edges = [0, *sorted(cuts), COUNT]
        sizes = [end - first for first, end in pairwise(edges)]
        assert torch.equal(run_alone(engine, ROWS, sizes), expected)

    holds()


@declaring(lambda stability: stability.chunks)
def test_a_prefill_longer_than_the_kernels_take_at_once_is_the_same(engine: StageEngine) -> None:
    rows = random_rows(SHAPE, 140)
    assert torch.equal(run_alone(engine, rows), run_alone(engine, rows, [127, 2, 11]))


@declaring(lambda stability: stability.threads)
@pytest.mark.parametrize(
    "sizes", [[COUNT], [1] * COUNT, [7] * 8 + [4]], ids=["at once", "by token", "by seven"]
)
def test_a_row_is_the_same_with_one_thread_and_with_two(
    case: Case, engine: StageEngine, sizes: Sequence[int]
) -> None:
    kind, profile = case
    two = make_engine(SHAPE, profile, kind, threads=2)
    found = run_alone(two, ROWS, sizes)
    torch.set_num_threads(1)
    assert torch.equal(found, run_alone(engine, ROWS, sizes))


def take_blocks_in(engine: StageEngine, order: Sequence[int]) -> None:
    """Have the next reservation take its blocks in this order."""
    fillers = [b"filler %d" % index for index in range(len(order))]
    for name in fillers:
        engine.open(name, 16)
    for index in reversed(order):
        engine.close(fillers[index])


@pytest.mark.parametrize("case", DECLARED, ids=str, scope="module")
@pytest.mark.parametrize("order", [[3, 2, 1, 0], [2, 0, 3, 1]], ids=["reversed", "scattered"])
def test_a_row_is_the_same_wherever_its_blocks_lie(case: Case, order: list[int]) -> None:
    kind, profile = case
    engine = make_engine(SHAPE, profile, kind)
    expected = run_alone(engine, ROWS)
    take_blocks_in(engine, order)
    engine.open(b"a", COUNT)
    assert engine._requests[b"a"].blocks == order
    assert torch.equal(run_in_steps(engine, b"a", ROWS, [COUNT]), expected)


@declaring(lambda stability: stability.replay_exact)
def test_a_journal_replayed_in_one_batched_prefill_is_the_state_that_was_decoded(engine: StageEngine) -> None:
    for name in (b"decoded", b"replayed", b"beside"):
        engine.open(name, COUNT)
    run_in_steps(engine, b"decoded", ROWS[:40], [1] * 40)
    engine.run_batch([StageStep(b"beside", 0, ROWS[7:20]), StageStep(b"replayed", 0, ROWS[:40])])
    states = [list(engine.export_state(name, 0, 40)) for name in (b"decoded", b"replayed")]
    outputs = [run_in_steps(engine, name, ROWS[40:], [1] * 20) for name in (b"decoded", b"replayed")]
    for name in (b"decoded", b"replayed", b"beside"):
        engine.close(name)
    assert states[0] == states[1]
    assert torch.equal(*outputs)


@needs_native
@pytest.mark.parametrize("profile", NumericProfile)
def test_rows_before_one_that_is_not_finite_are_the_same_as_without_it(profile: NumericProfile) -> None:
    # Positions after a row's own used to count with weight 0, and 0 times what is not finite is not 0.
    engine = make_engine(SHAPE, profile)
    rows = ROWS.clone()
    rows[21] = float("nan")
    assert torch.equal(run_alone(engine, rows)[:21], run_alone(engine, ROWS)[:21])


# The shipped model.


@pytest.fixture(scope="module", params=[FLOAT32, FAST], ids=["FLOAT32", "FAST"])
def large(request: pytest.FixtureRequest, whole: StageEngine, fast: StageEngine) -> StageEngine:
    return whole if request.param is FLOAT32 else fast


@pytest.fixture(scope="module")
def text_rows(client: ClientModel) -> Tensor:
    return client.embed([(7919 * index + 131) % client.config.vocabulary for index in range(36)])


@needs_native
def test_a_row_of_the_shipped_model_is_the_same_in_steps_among_others(
    large: StageEngine, text_rows: Tensor
) -> None:
    among = run_among(large, text_rows, [1, 1, 17, 1, 16], 2)
    assert torch.equal(among, run_alone(large, text_rows))


@needs_native
def test_a_row_of_the_shipped_model_is_the_same_token_by_token(large: StageEngine, text_rows: Tensor) -> None:
    assert torch.equal(run_alone(large, text_rows, [1] * 36), run_alone(large, text_rows))


@needs_native
@pytest.mark.parametrize("profile", NumericProfile)
def test_a_row_of_the_shipped_model_is_the_same_with_two_threads(
    shipped: GgufFile, text_rows: Tensor, profile: NumericProfile
) -> None:
    engines = [
        StageEngine.load(shipped, None, LayerRange(3, 4), profile=profile, threads=threads)
        for threads in (2, 1)
    ]
    assert torch.equal(*(run_alone(engine, text_rows) for engine in engines))
