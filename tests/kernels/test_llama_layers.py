"""Layers of many shapes against a slow float64 forward pass written for the tests."""

from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from kernels.tiny_llama import TinyShape, reference_logits, write_tiny
from kernels.tiny_rope import TinyScaling

from odsi_proto.kernels.engine import StageEngine
from odsi_proto.kernels.gguf import GgufFile
from odsi_proto.kernels.head import ClientModel
from odsi_proto.kernels.manifest import build_manifest
from odsi_proto.units import LayerRange

TOKEN_IDS = [1, 75, 104, 40, 7, 200, 199, 3, 81, 260, 17]
REQUEST = b"r" * 16

SHAPES = {
    "grouped two to one": TinyShape(),
    "one key-value head for all": TinyShape(kv_heads=1),
    "no grouping": TinyShape(kv_heads=4),
    "three groups of three": TinyShape(width=36, heads=9, kv_heads=3, head_size=4),
    "heads wider than the embedding": TinyShape(heads=4, head_size=16),
    "heads narrower than the embedding": TinyShape(heads=2, kv_heads=1, head_size=4),
    "a head of its own": TinyShape(tied=False),
    "one layer": TinyShape(layers=1),
    "another rope base": TinyShape(rope_base=500_000.0),
    "rope factors": TinyShape(rope_factors=True),
    "Q8_0 layers": TinyShape(quantised=gguf.GGMLQuantizationType.Q8_0),
    "Q4_0 layers": TinyShape(quantised=gguf.GGMLQuantizationType.Q4_0),
    "BF16 layers": TinyShape(quantised=gguf.GGMLQuantizationType.BF16),
    "linear scaling": TinyShape(scaling=TinyScaling(kind="linear")),
    "scaling of Llama 3": TinyShape(scaling=TinyScaling(kind="llama3")),
    "yarn": TinyShape(scaling=TinyScaling(kind="yarn")),
    "yarn with a magnitude of its own": TinyShape(scaling=TinyScaling(kind="yarn", attention_factor=0.7)),
    "Qwen2": TinyShape(architecture="qwen2", tied=False),
    "Qwen2 with yarn": TinyShape(architecture="qwen2", scaling=TinyScaling(kind="yarn")),
    "Qwen2 in Q8_0": TinyShape(architecture="qwen2", quantised=gguf.GGMLQuantizationType.Q8_0),
    "Qwen3": TinyShape(architecture="qwen3", head_size=16),
    "Qwen3 in Q4_0": TinyShape(architecture="qwen3", quantised=gguf.GGMLQuantizationType.Q4_0),
}


def _chunks(count: int, size: int) -> list[range]:
    return [range(first, min(first + size, count)) for first in range(0, count, size)]


@pytest.mark.parametrize("chunk", [1, 4, 64], ids=["token by token", "chunks of 4", "at once"])
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES.keys())
def test_logits_equal_an_independent_float64_forward_pass(
    tmp_path: Path, shape: TinyShape, chunk: int
) -> None:
    path = tmp_path / "tiny.gguf"
    weights = write_tiny(path, shape)
    with GgufFile(path) as file:
        manifest = build_manifest(file)
        client = ClientModel.load(file, manifest)
        engine = StageEngine.load(file, manifest, LayerRange(0, shape.layers))
    engine.open(REQUEST, len(TOKEN_IDS))
    embedded = client.embed(TOKEN_IDS)
    rows = torch.cat(
        [
            engine.run(REQUEST, part.start, embedded[part.start : part.stop])
            for part in _chunks(len(TOKEN_IDS), chunk)
        ]
    )
    found = torch.stack([client.logits(row) for row in rows]).numpy()
    np.testing.assert_allclose(found, reference_logits(weights, shape, TOKEN_IDS), atol=2e-4, rtol=0)


@pytest.mark.parametrize("cut", [1, 2])
def test_a_cut_between_layers_changes_no_bit(tiny_path: Path, cut: int) -> None:
    with GgufFile(tiny_path) as file:
        client = ClientModel.load(file, None)
        engines = [
            StageEngine.load(file, None, layers) for layers in (LayerRange(0, cut), LayerRange(cut, 3))
        ]
        uncut = StageEngine.load(file, None, LayerRange(0, 3))
    for engine in (*engines, uncut):
        engine.open(REQUEST, len(TOKEN_IDS))
    rows = client.embed(TOKEN_IDS)
    across = engines[1].run(REQUEST, 0, engines[0].run(REQUEST, 0, rows))
    assert torch.equal(across, uncut.run(REQUEST, 0, rows))
