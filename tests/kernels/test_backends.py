"""Every way to compute layers against the oracle of float64, and the FAST profile against FLOAT32 on text."""

from dataclasses import dataclass

import pytest
import torch
from kernels.conftest import ReferenceCase, reference_cases
from kernels.tiny_layers import (
    Shape,
    make_engine,
    needs_native,
    random_rows,
    relative_error,
    run_alone,
)
from torch import Tensor

from odsi_proto.kernels.engine import StageEngine
from odsi_proto.kernels.gguf import GgufFile
from odsi_proto.kernels.head import ClientModel
from odsi_proto.kernels.select import BackendKind
from odsi_proto.kernels.source import COMPUTED_TYPES
from odsi_proto.kernels.tokenizer import TextTokenizer
from odsi_proto.units import LayerRange
from odsi_proto.wire.tensor import NumericProfile

FLOAT32, FAST = NumericProfile.FLOAT32, NumericProfile.FAST
NATIVE, TORCH, REFERENCE = BackendKind.NATIVE, BackendKind.TORCH, BackendKind.REFERENCE

BACKENDS = [pytest.param(NATIVE, marks=needs_native, id="native"), pytest.param(TORCH, id="torch")]

COUNT, STEPS = 37, [18, 1, 1, 14, 3]
"""Positions across three blocks, in steps that end inside blocks and at their edges."""

FLOAT32_ERROR = 1e-4
"""Of a row's length, as the profile promises; measured: 1e-6."""
FAST_ERROR = {NATIVE: 0.06, TORCH: 0.03}
"""Of random rows rounded to eight bits (native) or to bfloat16 (torch); measured: half of it."""

SHAPES = {
    "Llama": Shape(),
    "Qwen2, with bias": Shape(bias=True),
    "Qwen3, with norms of heads": Shape(norm=True),
    "one head to a key": Shape(heads=4, kv_heads=4),
    "three heads to a key": Shape(heads=6),
    "five heads to a key": Shape(heads=10, bias=True),
    "twelve heads to a key": Shape(heads=24),
    "thirteen heads to a key": Shape(heads=26, norm=True),
    "thirteen heads to the only key": Shape(heads=26, kv_heads=1, bias=True),
    "heads of 32": Shape(head_size=32),
    "heads of 64": Shape(head_size=64, norm=True),
    "heads of 80": Shape(head_size=80, bias=True),
    "heads of 128": Shape(head_size=128),
    "wider than the heads": Shape(width=160),
    "a narrow feed-forward": Shape(feed_forward=32),
    "a wide feed-forward": Shape(feed_forward=352),
}
UNEVEN = {
    "widths of 48 and 80": Shape(width=48, heads=3, kv_heads=1, feed_forward=80),
    "a feed-forward of 16": Shape(feed_forward=16, heads=3, kv_heads=3),
}
"""Whole registers, and no whole groups of 32 columns: the native kernels take them in FLOAT32 only."""


@pytest.mark.parametrize("kind", BACKENDS)
@pytest.mark.parametrize("shape", [*SHAPES.values(), *UNEVEN.values()], ids=[*SHAPES, *UNEVEN])
def test_float32_rows_are_those_of_the_reference(shape: Shape, kind: BackendKind) -> None:
    rows = random_rows(shape, COUNT)
    expected = run_alone(make_engine(shape, kind=REFERENCE), rows)
    assert (
        relative_error(run_alone(make_engine(shape, FLOAT32, kind), rows, STEPS), expected) <= FLOAT32_ERROR
    )


@pytest.mark.parametrize("kind", BACKENDS)
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_fast_rows_are_near_those_of_the_reference(shape: Shape, kind: BackendKind) -> None:
    rows = random_rows(shape, COUNT)
    expected = run_alone(make_engine(shape, kind=REFERENCE), rows)
    assert (
        relative_error(run_alone(make_engine(shape, FAST, kind), rows, STEPS), expected) <= FAST_ERROR[kind]
    )


@pytest.mark.parametrize("kind", BACKENDS)
@pytest.mark.parametrize("packing", COMPUTED_TYPES)
@pytest.mark.parametrize("profile", NumericProfile)
def test_every_packing_gives_the_rows_of_the_reference(
    packing: str, kind: BackendKind, profile: NumericProfile
) -> None:
    shape = Shape(width=256, feed_forward=256, head_size=64, packing=packing)
    rows = random_rows(shape, 3)
    expected = run_alone(make_engine(shape, kind=REFERENCE), rows)
    allowed = FLOAT32_ERROR if profile is FLOAT32 else FAST_ERROR[kind]
    assert relative_error(run_alone(make_engine(shape, profile, kind), rows), expected) <= allowed


@pytest.mark.parametrize("kind", BACKENDS)
def test_positions_past_the_first_table_of_rotations_are_those_of_the_reference(kind: BackendKind) -> None:
    # The table holds 256 positions at first and grows to twice as many.
    shape = Shape(context=1024)
    rows = random_rows(shape, 300)
    engines = [make_engine(shape, FLOAT32, each) for each in (kind, REFERENCE)]
    found, expected = (run_alone(engine, rows, [255, 1, 1, 43]) for engine in engines)
    assert relative_error(found[250:], expected[250:]) <= FLOAT32_ERROR


# The shipped model.

TEXTS = {
    "prose": (
        "The lighthouse keeper had not spoken to anyone for eleven days when the boat finally came round "
        "the point. He counted the men aboard, twice, and put the kettle on. Nobody had told him that the "
        "war was over, and nobody would for another week."
    ),
    "code": (
        "import csv\n\ndef total(path):\n    with open(path, newline='') as handle:\n"
        "        rows = csv.reader(handle)\n        next(rows)\n"
        "        return sum(float(row[1]) for row in rows)\n\nprint(total('costs.csv'))\n"
    ),
    "a list in two languages": (
        "Shopping for Saturday:\n1. 2 kg potatoes, 3.20 EUR\n2. 500 g butter, 4.10 EUR\nTotal: 7.30 EUR\n\n"
        "Zutaten für den Teig: Mehl, Zucker, Salz und ein wenig Wasser. Danach 40 Minuten bei 180 Grad.\n"
    ),
}


@dataclass(frozen=True)
class Pair:
    """The shipped model in FAST, whole."""

    client: ClientModel
    engine: StageEngine


@pytest.fixture(scope="module", params=BACKENDS)
def pair(request: pytest.FixtureRequest, shipped: GgufFile) -> Pair:
    load = {"profile": FAST, "backend": request.param}
    return Pair(
        ClientModel.load(shipped, None, **load), StageEngine.load(shipped, None, LayerRange(0, 30), **load)
    )


def log_chances(client: ClientModel, engine: StageEngine, token_ids: list[int], first: int = 0) -> Tensor:
    """[count, vocabulary]: of the token after each, from the ``first`` on."""
    return client.logits_of(run_alone(engine, client.embed(token_ids))[first:]).log_softmax(-1)


def divergence(exact: Tensor, fast: Tensor) -> Tensor:
    """KL of each position."""
    return (exact.exp() * (exact - fast)).sum(-1)


def answer_chances(client: ClientModel, engine: StageEngine) -> dict[str, Tensor]:
    """At each place where a reference answer has a token, with the answer fed in."""
    return {
        case.id: log_chances(
            client, engine, [*case.prompt_ids, *case.greedy_ids[:-1]], len(case.prompt_ids) - 1
        )
        for case in reference_cases()
    }


@pytest.fixture(scope="module")
def exact_answers(client: ClientModel, whole: StageEngine) -> dict[str, Tensor]:
    return answer_chances(client, whole)


@pytest.fixture(scope="module")
def fast_answers(pair: Pair) -> dict[str, Tensor]:
    return answer_chances(pair.client, pair.engine)


@pytest.mark.spec("NUM-014")
@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_fast_diverges_little_from_float32_on_text(
    pair: Pair, client: ClientModel, whole: StageEngine, tokenizer: TextTokenizer, text: str
) -> None:
    token_ids = tokenizer.encode(text)
    exact, fast = log_chances(client, whole, token_ids), log_chances(pair.client, pair.engine, token_ids)
    assert float(divergence(exact, fast).mean()) <= 0.01
    assert float((exact.argmax(-1) == fast.argmax(-1)).double().mean()) >= 0.95


@pytest.mark.spec("NUM-014")
def test_fast_diverges_little_from_float32_on_each_reference_answer(
    fast_answers: dict[str, Tensor], exact_answers: dict[str, Tensor], reference: ReferenceCase
) -> None:
    fast, exact = fast_answers[reference.id], exact_answers[reference.id]
    assert float(divergence(exact, fast).mean()) < 0.01


def test_fast_prefers_the_tokens_of_the_reference_answers(fast_answers: dict[str, Tensor]) -> None:
    cases = reference_cases()
    found = torch.cat([fast_answers[case.id].argmax(-1) for case in cases])
    wanted = torch.tensor([token for case in cases for token in case.greedy_ids])
    assert float((found == wanted).double().mean()) >= 0.95
