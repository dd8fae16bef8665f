"""The shipped model, opened and loaded once for all tests, and the vendored reference answers."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from kernels.tiny_llama import TinyShape, write_tiny

from odsi_proto.kernels.engine import StageEngine
from odsi_proto.kernels.gguf import GgufFile
from odsi_proto.kernels.head import ClientModel
from odsi_proto.kernels.manifest import build_manifest
from odsi_proto.kernels.model_path import default_model_path
from odsi_proto.kernels.tokenizer import TextTokenizer
from odsi_proto.kernels.vocabulary import load_tokenizer
from odsi_proto.units import LayerRange
from odsi_proto.wire.manifest import ModelManifest
from odsi_proto.wire.tensor import NumericProfile

REFERENCE = Path(__file__).parents[1] / "data" / "reference"


@dataclass(frozen=True)
class ReferenceCase:
    """One answer of llama.cpp; tests/data/reference/README.md says how it was made."""

    id: str
    chat: bool
    prompt: str
    rendered: str
    prompt_ids: list[int]
    greedy_ids: list[int]
    text: str
    first_logits: dict[int, float]


def reference_cases() -> list[ReferenceCase]:
    """All of them."""
    content = json.loads((REFERENCE / "smollm2-greedy.json").read_text())
    return [
        ReferenceCase(
            id=case["id"],
            chat=case["mode"] == "chat",
            prompt=case["prompt"],
            rendered=case["rendered"],
            prompt_ids=case["prompt_ids"],
            greedy_ids=case["greedy_ids"],
            text=case["text"],
            first_logits={int(token): logit for token, logit in case["first_logits_top10"]},
        )
        for case in content["cases"]
    ]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A test with the argument ``reference`` runs for every case."""
    if "reference" in metafunc.fixturenames:
        cases = reference_cases()
        metafunc.parametrize("reference", cases, ids=[case.id for case in cases])


@pytest.fixture(scope="session")
def shipped() -> Iterator[GgufFile]:
    with GgufFile(default_model_path()) as file:
        yield file


@pytest.fixture(scope="session")
def manifest(shipped: GgufFile) -> ModelManifest:
    return build_manifest(shipped)


@pytest.fixture(scope="session")
def tokenizer(shipped: GgufFile) -> TextTokenizer:
    return load_tokenizer(shipped)


@pytest.fixture(scope="session")
def client(shipped: GgufFile, manifest: ModelManifest) -> ClientModel:
    return ClientModel.load(shipped, manifest)


@pytest.fixture(scope="session")
def whole(shipped: GgufFile, manifest: ModelManifest) -> StageEngine:
    """All layers in one engine."""
    return StageEngine.load(shipped, manifest, LayerRange(0, 30))


@pytest.fixture(scope="session")
def fast(shipped: GgufFile) -> StageEngine:
    """The same in the FAST profile."""
    return StageEngine.load(shipped, None, LayerRange(0, 30), profile=NumericProfile.FAST)


@pytest.fixture
def tiny_path(tmp_path: Path) -> Path:
    """A tiny model with every kind of metadata."""
    path = tmp_path / "tiny.gguf"
    write_tiny(path, TinyShape())
    return path
