"""Hugging Face directories: the same model as the GGUF file of the same weights, whatever the layout."""

from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch
from kernels.tiny_hf import config_of, tokenizer_json, write_json, write_tiny_hf
from kernels.tiny_llama import CHAT_TEMPLATE, TOKENS, TinyShape, reference_logits, write_tiny
from kernels.tiny_rope import TinyScaling

from odsi_proto.errors import ModelError
from odsi_proto.kernels.chat import Message, render_chat
from odsi_proto.kernels.engine import StageEngine
from odsi_proto.kernels.gguf import GgufFile
from odsi_proto.kernels.head import ClientModel
from odsi_proto.kernels.hf_model import HfModel
from odsi_proto.kernels.hyperparameters import read_config
from odsi_proto.kernels.manifest import build_manifest, load_or_build, sidecar_path
from odsi_proto.kernels.quants import load_tensor
from odsi_proto.kernels.source import ModelSource
from odsi_proto.kernels.vocabulary import load_tokenizer
from odsi_proto.units import LayerRange
from odsi_proto.wire.manifest import to_sidecar

TOKEN_IDS = [1, 75, 104, 40, 7, 200, 199, 3, 81, 260, 17]
REQUEST = b"r" * 16

SHAPES = {
    "Llama": TinyShape(),
    "Llama with a head of its own": TinyShape(tied=False),
    "Llama with heads wider than the embedding": TinyShape(head_size=16),
    "Llama with linear scaling": TinyShape(scaling=TinyScaling(kind="linear")),
    "Llama 3": TinyShape(scaling=TinyScaling(kind="llama3")),
    "Llama with yarn": TinyShape(scaling=TinyScaling(kind="yarn", attention_factor=0.7)),
    "Qwen2": TinyShape(architecture="qwen2", tied=False),
    "Qwen2 with yarn": TinyShape(architecture="qwen2", scaling=TinyScaling(kind="yarn")),
    "Qwen3": TinyShape(architecture="qwen3", head_size=16),
}


def logits(source: ModelSource, layers: int) -> torch.Tensor:
    """After every position."""
    manifest = build_manifest(source)
    client = ClientModel.load(source, manifest)
    engine = StageEngine.load(source, manifest, LayerRange(0, layers))
    engine.open(REQUEST, len(TOKEN_IDS))
    return torch.stack([client.logits(row) for row in engine.run(REQUEST, 0, client.embed(TOKEN_IDS))])


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES.keys())
def test_a_directory_has_the_logits_of_the_gguf_file(tmp_path: Path, shape: TinyShape) -> None:
    weights = write_tiny(tmp_path / "tiny.gguf", shape)
    write_tiny_hf(tmp_path / "tiny", shape)
    with GgufFile(tmp_path / "tiny.gguf") as file, HfModel(tmp_path / "tiny") as directory:
        ours, theirs = logits(directory, shape.layers), logits(file, shape.layers)
    # Not to the last bit: GGUF keeps the numbers of a scaling in binary32.
    np.testing.assert_allclose(ours, theirs, atol=2e-5, rtol=0)
    np.testing.assert_allclose(ours, reference_logits(weights, shape, TOKEN_IDS), atol=2e-4, rtol=0)


def test_both_formats_say_the_same_of_a_model(tmp_path: Path) -> None:
    shape = TinyShape(architecture="qwen3", scaling=TinyScaling(kind="linear"))
    write_tiny(tmp_path / "tiny.gguf", shape)
    write_tiny_hf(tmp_path / "tiny", shape)
    with GgufFile(tmp_path / "tiny.gguf") as file, HfModel(tmp_path / "tiny") as directory:
        theirs, ours = asdict(read_config(file)), asdict(read_config(directory))
    assert theirs.pop("norm_epsilon") == pytest.approx(ours.pop("norm_epsilon"))
    assert theirs == ours


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_is_read_bit_by_bit(tmp_path: Path, dtype: str) -> None:
    written = write_tiny_hf(tmp_path, TinyShape(), dtype=dtype)["model.layers.1.mlp.up_proj.weight"]
    with HfModel(tmp_path) as directory:
        found = load_tensor(directory, "blk.1.ffn_up.weight").numpy()
    if dtype == "bfloat16":
        np.testing.assert_array_equal(found.view(np.uint32) >> 16, written)
    else:
        np.testing.assert_array_equal(found, written.astype(np.float32))


def test_how_tensors_are_spread_over_files_changes_no_root(tmp_path: Path) -> None:
    roots = set()
    for shards in (1, 2, 5):
        write_tiny_hf(tmp_path / str(shards), TinyShape(), shards=shards)
        with HfModel(tmp_path / str(shards)) as directory:
            manifest = build_manifest(directory)
        roots.add(manifest.root)
    assert len(roots) == 1
    assert [entry.name for entry in manifest.tensors] == sorted(entry.name for entry in manifest.tensors)


@pytest.mark.parametrize(
    "name",
    [
        "config.json",
        "generation_config.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "chat_template.jinja",
    ],
)
def test_every_file_that_decides_an_answer_is_in_the_root(tmp_path: Path, name: str) -> None:
    write_tiny_hf(tmp_path, TinyShape())
    with HfModel(tmp_path) as directory:
        before = build_manifest(directory)
    path = tmp_path / name
    path.write_text(path.read_text() + " " if path.exists() else "{}")
    with HfModel(tmp_path) as directory:
        after = build_manifest(directory)
        with pytest.raises(ModelError, match=r"metadata has SHA-256 \w{64}, the manifest has \w{64}"):
            ClientModel.load(directory, before)
    assert after.tensors == before.tensors
    assert after.root != before.root


def test_the_metadata_are_the_files_in_order_after_their_lengths(tmp_path: Path) -> None:
    write_tiny_hf(tmp_path, TinyShape())
    (tmp_path / "chat_template.jinja").write_text("{{ x }}")
    config, tokenizer, settings = (
        (tmp_path / name).read_bytes() for name in ("config.json", "tokenizer.json", "tokenizer_config.json")
    )
    with HfModel(tmp_path) as directory:
        found = bytes(directory.metadata)
    parts = [config, b"", tokenizer, settings, b"{{ x }}"]
    assert found == b"".join(len(part).to_bytes(8, "big") + part for part in parts)


def test_the_manifest_is_kept_inside_the_directory(tmp_path: Path) -> None:
    write_tiny_hf(tmp_path, TinyShape())
    with HfModel(tmp_path) as directory:
        built = build_manifest(directory)
        sidecar_path(tmp_path).write_text(to_sidecar(built))
        assert load_or_build(directory, None, lambda done, total: pytest.fail("a tensor was hashed")) == built
    assert sidecar_path(tmp_path) == tmp_path / "model.manifest.json"


def test_links_in_the_directory_are_followed(tmp_path: Path) -> None:
    write_tiny_hf(tmp_path / "blobs", TinyShape())
    (tmp_path / "snapshot").mkdir()
    for file in (tmp_path / "blobs").iterdir():
        (tmp_path / "snapshot" / file.name).symlink_to(f"../blobs/{file.name}")
    with HfModel(tmp_path / "snapshot") as directory:
        assert read_config(directory).layers_count == 3


# Text.


def test_a_directory_has_the_text_of_the_gguf_file(tmp_path: Path) -> None:
    write_tiny(tmp_path / "tiny.gguf", TinyShape())
    write_tiny_hf(tmp_path / "tiny", TinyShape())
    text = "hello world 12 é\n<|end|> 🎄" * 3  # longer than the truncation that the file asks for
    with GgufFile(tmp_path / "tiny.gguf") as file, HfModel(tmp_path / "tiny") as directory:
        theirs, ours = load_tokenizer(file), load_tokenizer(directory)
    ids = theirs.encode(text)
    assert ours.encode(text) == ids
    assert ours.decode(ids) == theirs.decode(ids)
    assert (ours.bos_id, ours.bos_text, ours.eos_text) == (1, theirs.bos_text, theirs.eos_text)
    assert ours.end_ids == theirs.end_ids
    assert not ours.adds_bos


@pytest.mark.parametrize("place", ["tokenizer_config.json", "chat_template.jinja", "a list"])
def test_the_chat_template_is_found_where_it_may_be(tmp_path: Path, place: str) -> None:
    write_tiny_hf(tmp_path, TinyShape())
    if place == "chat_template.jinja":
        write_json(tmp_path / "tokenizer_config.json", {"chat_template": "another"})
        (tmp_path / place).write_text(CHAT_TEMPLATE)
    elif place == "a list":
        templates = [{"name": "tools", "template": "x"}, {"name": "default", "template": CHAT_TEMPLATE}]
        write_json(tmp_path / "tokenizer_config.json", {"chat_template": templates})
    with HfModel(tmp_path) as directory:
        rendered = render_chat(directory, load_tokenizer(directory), [Message("user", "hi")])
    assert rendered == "<|start|>user\nhi<|end|>\n<|start|>assistant\n"


def test_every_end_token_of_the_generation_config_ends_an_answer(tmp_path: Path) -> None:
    write_tiny_hf(tmp_path, TinyShape())
    write_json(tmp_path / "generation_config.json", {"eos_token_id": [0, 7]})
    with HfModel(tmp_path) as directory:
        assert load_tokenizer(directory).end_ids == {0, 2, 7}


def test_a_post_processor_that_begins_with_bos_asks_for_it(tmp_path: Path) -> None:
    write_tiny_hf(tmp_path, TinyShape())
    one = [{"SpecialToken": {"id": "<|start|>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}]
    processor = {
        "type": "TemplateProcessing",
        "single": one,
        "pair": one,
        "special_tokens": {"<|start|>": {"id": "<|start|>", "ids": [1], "tokens": ["<|start|>"]}},
    }
    write_json(tmp_path / "tokenizer.json", tokenizer_json() | {"post_processor": processor})
    with HfModel(tmp_path) as directory:
        tokenizer = load_tokenizer(directory)
    assert tokenizer.adds_bos
    assert tokenizer.encode("h") == [TOKENS.index("h")]


def test_a_sentence_piece_vocabulary_has_its_spaces_and_bytes(tmp_path: Path) -> None:
    words = ["<unk>", "<s>", "</s>", "<0xC3>", "<0xA9>", "\N{LOWER ONE EIGHTH BLOCK}", "h", "i"]
    own = tokenizer_json()
    own |= {
        "added_tokens": [],
        "normalizer": {
            "type": "Sequence",
            "normalizers": [
                {"type": "Prepend", "prepend": words[5]},
                {"type": "Replace", "pattern": {"String": " "}, "content": words[5]},
            ],
        },
        "pre_tokenizer": None,
        "decoder": {
            "type": "Sequence",
            "decoders": [
                {"type": "Replace", "pattern": {"String": words[5]}, "content": " "},
                {"type": "ByteFallback"},
                {"type": "Fuse"},
                {"type": "Strip", "content": " ", "start": 1, "stop": 0},
            ],
        },
        "model": {
            "type": "BPE",
            "vocab": {word: index for index, word in enumerate(words)},
            "merges": [],
            "byte_fallback": True,
            "unk_token": "<unk>",
        },
    }
    write_tiny_hf(tmp_path, TinyShape())
    write_json(tmp_path / "tokenizer.json", own)
    with HfModel(tmp_path) as directory:
        tokenizer = load_tokenizer(directory)
    ids = tokenizer.encode("hi é")
    assert ids == [5, 6, 7, 5, 3, 4]
    assert tokenizer.decode(ids) == " hi é"


EXPONENTIAL = {"type": "Replace", "pattern": {"String": "a"}, "content": "a" * 1_000}

TOKENIZERS = {
    "not JSON": (b"{", "tokenizer.json can not be used: "),
    "nested": (b"[" * 100_000, "tokenizer.json can not be used: "),
    "another model": (
        {"model": {"type": "WordLevel", "vocab": {"a": 0}, "unk_token": "a"}},
        "tokenizer.json has a model of type WordLevel, expected BPE",
    ),
    "an expression without end": (
        {
            "pre_tokenizer": {
                "type": "Split",
                "pattern": {"Regex": "(a+)+$"},
                "behavior": "Isolated",
                "invert": False,
            }
        },
        "tokenizer.json has a pre_tokenizer that is not known: ",
    ),
    "text that grows": (
        {"normalizer": {"type": "Sequence", "normalizers": [EXPONENTIAL] * 9}},
        "tokenizer.json has a normalizer that is not known: ",
    ),
    "no decoder": ({"decoder": None}, "tokenizer.json has no decoder"),
    "an unknown decoder": (
        {"decoder": {"type": "WordPiece", "prefix": "##", "cleanup": True}},
        "tokenizer.json has a decoder that is not known: ",
    ),
    "an id past the vocabulary": (
        {"model": {"type": "BPE", "vocab": {"a": 4_294_967_295}, "merges": []}},
        "with id 4294967295, but vocab_size is 265",
    ),
}


@pytest.mark.parametrize(("change", "message"), TOKENIZERS.values(), ids=TOKENIZERS.keys())
def test_a_hostile_tokenizer_names_directory_and_part(
    tmp_path: Path, change: bytes | dict[str, object], message: str
) -> None:
    write_tiny_hf(tmp_path, TinyShape())
    if isinstance(change, bytes):
        (tmp_path / "tokenizer.json").write_bytes(change)
    else:
        write_json(tmp_path / "tokenizer.json", tokenizer_json() | change)
    with HfModel(tmp_path) as directory, pytest.raises(ModelError) as caught:
        load_tokenizer(directory)
    assert str(caught.value).startswith(f"{tmp_path}: ")
    assert message in str(caught.value)
    assert len(str(caught.value)) < len(str(tmp_path)) + 400


@pytest.mark.parametrize("value", ["2", [2, 265], [-1], True, [2] * 65])
def test_an_end_token_that_is_none_is_named(tmp_path: Path, value: object) -> None:
    write_tiny_hf(tmp_path, TinyShape())
    write_json(tmp_path / "config.json", config_of(TinyShape()) | {"eos_token_id": value})
    with (
        HfModel(tmp_path) as directory,
        pytest.raises(ModelError, match=r"config\.json: key eos_token_id is .*, expected ids from 0 to 264"),
    ):
        load_tokenizer(directory)


def test_a_directory_without_a_tokenizer_still_runs_layers(tmp_path: Path) -> None:
    write_tiny_hf(tmp_path, TinyShape())
    (tmp_path / "tokenizer.json").unlink()
    with HfModel(tmp_path) as directory:
        StageEngine.load(directory, None, LayerRange(0, 1))
        with pytest.raises(ModelError, match=r"holds no tokenizer\.json, which text needs"):
            load_tokenizer(directory)
