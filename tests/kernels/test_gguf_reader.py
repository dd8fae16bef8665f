"""The reader against the ``gguf`` package, and against files that no honest writer makes."""

import os
import random
import struct
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import gguf
import numpy as np
import pytest
from kernels.tiny_llama import TinyShape, write_tiny

from odsi_proto.errors import ModelError
from odsi_proto.kernels.gguf import GgufFile
from odsi_proto.kernels.gguf_layout import ENTRIES_MAX, NAME_BYTES_MAX, STRINGS_MAX, TENSOR_TYPES
from odsi_proto.kernels.hyperparameters import read_config
from odsi_proto.kernels.quants import load_tensor
from odsi_proto.kernels.roles import check_client, check_layers
from odsi_proto.kernels.vocabulary import load_tokenizer
from odsi_proto.units import LayerRange

UINT32, STRING, ARRAY, UINT64 = 4, 8, 9, 10
F32, Q4_0 = 0, 2


def text(value: str) -> bytes:
    """A GGUF string."""
    raw = value.encode()
    return struct.pack("<Q", len(raw)) + raw


def key(name: str, kind: int, body: bytes) -> bytes:
    return text(name) + struct.pack("<I", kind) + body


def alignment(value: int) -> bytes:
    return key("general.alignment", UINT32, struct.pack("<I", value))


def tensor(name: str, dimensions: Sequence[int], kind: int = F32, offset: int = 0) -> bytes:
    sizes = struct.pack(f"<{len(dimensions)}Q", *dimensions)
    return text(name) + struct.pack("<I", len(dimensions)) + sizes + struct.pack("<IQ", kind, offset)


def model(keys: Sequence[bytes] = (), tensors: Sequence[bytes] = (), data: bytes = bytes(256)) -> bytes:
    """A file of these entries with ``data`` at the next multiple of 32."""
    header = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(keys)) + b"".join(keys) + b"".join(tensors)
    return header + bytes(-len(header) % 32) + data


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "model.gguf"


# Honest files.


def test_a_tiny_file_reads_as_the_gguf_package_reads_it(tiny_path: Path) -> None:
    theirs = gguf.GGUFReader(tiny_path)
    with GgufFile(tiny_path) as ours:
        assert list(ours.keys) == [name for name in theirs.fields if not name.startswith("GGUF.")]
        assert list(ours.tensors) == [entry.name for entry in theirs.tensors]
        for entry in theirs.tensors:
            info = ours.tensors[entry.name]
            assert info.shape == tuple(entry.shape[::-1].tolist())
            assert info.type.name == entry.tensor_type.name
            assert info.offset == entry.data_offset
            assert bytes(ours.raw(entry.name)) == entry.data.tobytes()
        assert ours.texts("tokenizer.ggml.tokens") == theirs.fields["tokenizer.ggml.tokens"].contents()
        assert (
            ours.integers("tokenizer.ggml.token_type")
            == theirs.fields["tokenizer.ggml.token_type"].contents()
        )
        assert ours.text("tokenizer.chat_template") == theirs.fields["tokenizer.chat_template"].contents()
        assert ours.integer("llama.block_count") == 3
        assert ours.real("llama.rope.freq_base") == 10_000.0


def test_the_sizes_of_all_types_are_those_of_the_gguf_package() -> None:
    for number, kind in TENSOR_TYPES.items():
        theirs = gguf.GGMLQuantizationType(number)
        assert (kind.name, (kind.block_values, kind.block_bytes)) == (
            theirs.name,
            gguf.GGML_QUANT_SIZES[theirs],
        )


def test_a_big_alignment_moves_the_data(path: Path) -> None:
    content = model([alignment(128)], [tensor("t", [2])], data=b"")
    path.write_bytes(content + bytes(-len(content) % 128) + struct.pack("<2f", 1.0, 2.0))
    with GgufFile(path) as file:
        assert load_tensor(file, "t").tolist() == [1.0, 2.0]


def test_version_2_is_read(path: Path) -> None:
    path.write_bytes(model(tensors=[tensor("t", [4])]).replace(struct.pack("<I", 3), struct.pack("<I", 2), 1))
    with GgufFile(path) as file:
        assert file.tensors["t"].shape == (4,)


def test_a_tensor_may_end_where_the_file_ends(path: Path) -> None:
    path.write_bytes(model(tensors=[tensor("t", [64])], data=bytes(256)))
    with GgufFile(path) as file:
        assert len(file.raw("t")) == 256


def test_a_missing_key_is_none(tiny_path: Path) -> None:
    with GgufFile(tiny_path) as file:
        assert file.integer("no.such.key") is None
        assert file.texts("no.such.key") is None
        assert file.array_length("no.such.key") is None


def test_a_tensor_outlives_the_file_that_it_was_loaded_from(tiny_path: Path) -> None:
    with GgufFile(tiny_path) as file:
        norm = load_tensor(file, "output_norm.weight")
        view = file.raw("output_norm.weight")
    assert norm.tolist() == np.frombuffer(view, dtype=np.float32).tolist()


# Files that are refused, each with one line that names what and where.

REFUSED = {
    "empty": (b"", "can not be read: the file is empty"),
    "another format": (b"PK\x03\x04" + bytes(60), "not a GGUF file: it begins with b'PK"),
    "magic only": (b"GGUF", "the version ends at byte 8, but the file has 4"),
    "version 1": (b"GGUF" + struct.pack("<IQQ", 1, 0, 0), "GGUF version 1, expected 2 or 3"),
    "big-endian": (b"GGUF" + struct.pack(">IQQ", 3, 0, 0), "GGUF version 50331648, expected 2 or 3"),
    "too many tensors": (
        b"GGUF" + struct.pack("<IQQ", 3, ENTRIES_MAX + 1, 0),
        f"{ENTRIES_MAX + 1} tensors, expec",
    ),
    "too many keys": (b"GGUF" + struct.pack("<IQQ", 3, 0, 2**63), f"{2**63} metadata keys, expected at most"),
    "keys that are not there": (
        b"GGUF" + struct.pack("<IQQ", 3, 0, 9),
        "a metadata key ends at byte 32, but",
    ),
    "a long key": (
        model([key("k" * (NAME_BYTES_MAX + 1), UINT32, bytes(4))]),
        "a metadata key has 1025 bytes",
    ),
    "a key that is not UTF-8": (
        model([struct.pack("<Q", 2) + b"\xff\xfe"]),
        "a metadata key at byte 32 is not UTF-8",
    ),
    "a key with a line feed": (
        model([key("a\nb", UINT32, bytes(4))]),
        "a metadata key at byte 32 is not printable",
    ),
    "a key twice": (model([key("k", UINT32, bytes(4))] * 2), "key k appears twice"),
    "a value type of no meaning": (
        model([key("k", 13, bytes(4))]),
        "key k has value type 13, expected 0 to 12",
    ),
    "a string without end": (
        model([key("k", STRING, struct.pack("<Q", 2**64 - 1))]),
        "key k ends at byte 1844674",
    ),
    "an array without end": (
        model([key("k", ARRAY, struct.pack("<IQ", UINT64, 2**61))]),
        "key k ends at byte 18446744",
    ),
    "more strings than bytes": (
        model([key("k", ARRAY, struct.pack("<IQ", STRING, STRINGS_MAX))]),
        "key k ends at byte",
    ),
    "more strings than any model": (
        model([key("k", ARRAY, struct.pack("<IQ", STRING, STRINGS_MAX + 1))]),
        f"key k has {STRINGS_MAX + 1} strings, expected at most {STRINGS_MAX}",
    ),
    "arrays in arrays": (
        model([key("k", ARRAY, struct.pack("<IQ", ARRAY, 1) * 1_000)]),
        "key k is an array of arrays",
    ),
    "an alignment of 0": (model([alignment(0)]), "key general.alignment is 0, expected a power of two"),
    "an alignment of 48": (model([alignment(48)]), "key general.alignment is 48, expected a power of two"),
    "an alignment in text": (
        model([key("general.alignment", STRING, text("32"))]),
        "key general.alignment is string, expected uint32",
    ),
    "an alignment past the end": (
        model([alignment(2**31)], [tensor("t", [1])]),
        "tensor t ends at byte 214748",
    ),
    "a tensor twice": (model(tensors=[tensor("t", [1])] * 2), "tensor t appears twice"),
    "no dimensions": (model(tensors=[tensor("t", [])]), "tensor t has 0 dimensions, expected 1 to 4"),
    "five dimensions": (model(tensors=[tensor("t", [1] * 5)]), "tensor t has 5 dimensions, expected 1 to 4"),
    "2**32 - 1 dimensions": (model(tensors=[text("t") + b"\xff" * 4]), "tensor t has 4294967295 dimensions"),
    "a dimension of 0": (
        model(tensors=[tensor("t", [4, 0])]),
        r"tensor t has dimensions (4, 0), expected each at le",
    ),
    "a tensor past the end": (
        model(tensors=[tensor("t", [65])]),
        "tensor t ends at byte 324, but the file has 320",
    ),
    "sizes that overflow": (
        model(tensors=[tensor("t", [2**40, 2**40])]),
        "tensor t ends at byte 4835703278458",
    ),
    "an offset past the end": (
        model(tensors=[tensor("t", [1], offset=2**63)]),
        "tensor t ends at byte 9223372036",
    ),
    "an offset out of line": (
        model(tensors=[tensor("t", [1], offset=4)]),
        "tensor t lies at offset 4, expected a mu",
    ),
    "half a block": (
        model(tensors=[tensor("t", [48, 2], Q4_0)]),
        "tensor t has rows of 48 values, expected a multip",
    ),
    "tensors that share their bytes": (
        model(tensors=[tensor("a", [64]), tensor("b", [64])], data=bytes(256)),
        "the tensors have 512 bytes in all, but the file has 352: they overlap",
    ),
    "a tensor type of no meaning": (
        model(tensors=[tensor("t", [1], 99)]),
        "tensor t has type number 99, expected on",
    ),
    "a removed tensor type": (
        model(tensors=[tensor("t", [1], 4)]),
        "tensor t has type number 4, expected one of",
    ),
}


@pytest.mark.parametrize(("content", "message"), REFUSED.values(), ids=REFUSED.keys())
def test_a_damaged_file_is_one_line_that_names_file_and_place(
    path: Path, content: bytes, message: str
) -> None:
    path.write_bytes(content)
    with pytest.raises(ModelError) as caught:
        GgufFile(path)
    assert str(caught.value).startswith(f"{path}: {message}")
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_named(path: Path) -> None:
    with pytest.raises(ModelError, match=r"model.gguf: no such file"):
        GgufFile(path)


def test_a_directory_is_not_a_model(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="not a regular file"):
        GgufFile(tmp_path)


def test_a_pipe_is_refused_and_not_waited_for(path: Path) -> None:
    os.mkfifo(path)
    with pytest.raises(ModelError, match="not a regular file"):
        GgufFile(path)


def test_a_value_of_another_type_names_the_key_and_both_types(tiny_path: Path) -> None:
    with GgufFile(tiny_path) as file:
        with pytest.raises(ModelError, match=r"key llama.block_count is uint32, expected a string"):
            file.text("llama.block_count")
        with pytest.raises(
            ModelError, match=r"key tokenizer.ggml.tokens is an array of string, expected an integer"
        ):
            file.integer("tokenizer.ggml.tokens")
        with pytest.raises(
            ModelError, match=r"key llama.rope.freq_base is float32, expected an array of strings"
        ):
            file.texts("llama.rope.freq_base")


def test_text_that_is_not_utf_8_names_the_key(path: Path) -> None:
    path.write_bytes(model([key("k", STRING, struct.pack("<Q", 1) + b"\xff")]))
    with GgufFile(path) as file, pytest.raises(ModelError, match="key k holds text that is not UTF-8"):
        file.text("k")


# Files damaged at random: an error or a model, nothing else.


def read_everything(path: Path) -> None:
    """What a node and a client do with a file, short of running it."""
    with GgufFile(path) as file:
        config = read_config(file)
        for name in (*check_layers(file, config, LayerRange(0, 1)), *check_client(file, config)):
            load_tensor(file, name)
        load_tokenizer(file)


def outcome(path: Path, content: bytes) -> str:
    path.write_bytes(content)
    try:
        read_everything(path)
    except ModelError:
        return "error"
    return "model"


def damaged(content: bytes, seed: int) -> Iterator[bytes]:
    """Copies of ``content``, each with a few bytes changed, most of them in the header."""
    generator = random.Random(seed)
    for _ in range(400):
        copy = bytearray(content)
        for _ in range(generator.randint(1, 4)):
            copy[generator.randrange(len(copy) // generator.choice((1, 4, 16)))] = generator.randrange(256)
        yield bytes(copy)


def test_flipped_bytes_end_in_a_model_or_a_model_error(tiny_path: Path, path: Path) -> None:
    outcomes = Counter(outcome(path, content) for content in damaged(tiny_path.read_bytes(), seed=20))
    assert outcomes["model"] > 20
    assert outcomes["error"] > 20


def test_a_file_cut_short_anywhere_is_a_model_error(tmp_path: Path, path: Path) -> None:
    whole = tmp_path / "whole.gguf"
    write_tiny(whole, TinyShape(layers=1, width=8, heads=1, kv_heads=1, feed_forward=8))
    content = whole.read_bytes()
    for size in range(0, len(content), 13):
        path.write_bytes(content[:size])
        with pytest.raises(ModelError, match=r"model\.gguf"):
            read_everything(path)
