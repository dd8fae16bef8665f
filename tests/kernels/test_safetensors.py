"""The safetensors reader: what the format's own library writes, and files that lie."""

import json
import struct
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from kernels.tiny_hf import hf_tensors, safetensors_bytes, with_header, write_json, write_tiny_hf
from kernels.tiny_llama import TinyShape

from odsi_proto.errors import ModelError
from odsi_proto.kernels.hf_model import FILES_BYTES_MAX, SHARDS_MAX, HfModel
from odsi_proto.kernels.json_text import VALUES_MAX
from odsi_proto.kernels.safetensors import HEADER_BYTES_MAX, NAME_BYTES_MAX, SafetensorsFile

MEMORY_BYTES_MAX = 8 << 20
"""A hostile file here has a few kilobytes; nothing may be allocated because of what it states."""


@pytest.fixture
def little_memory() -> Iterator[None]:
    """The test's own peak stays small."""
    tracemalloc.start()
    yield
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < MEMORY_BYTES_MAX


def write(path: Path, header: Any, data: bytes = b"", *, padding: int = 0) -> Path:
    """A file with ``header``, in JSON unless it is bytes already."""
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(with_header(raw + b" " * padding) + data)
    return path


def entry(dtype: str = "F32", shape: object = (2,), offsets: object = (0, 8)) -> dict[str, object]:
    """What a header says of one tensor."""
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


def test_tensors_come_back_as_they_were_written(tmp_path: Path) -> None:
    written = hf_tensors(TinyShape(layers=1))
    (tmp_path / "t.safetensors").write_bytes(safetensors_bytes(written))
    file = SafetensorsFile(tmp_path / "t.safetensors")
    assert list(file.tensors) == list(written)
    for name, info in file.tensors.items():
        assert info.shape == written[name].shape
        assert bytes(file.raw(info)) == written[name].tobytes()
    file.close()


def test_a_header_may_be_padded_and_without_metadata(tmp_path: Path) -> None:
    file = SafetensorsFile(write(tmp_path / "t.safetensors", {"t": entry()}, bytes(8), padding=40))
    assert np.frombuffer(file.raw(file.tensors["t"]), np.float32).tolist() == [0, 0]
    file.close()


def test_tensors_may_be_listed_in_another_order_than_they_lie_in(tmp_path: Path) -> None:
    header = {"b": entry(offsets=(8, 16)), "a": entry(offsets=(0, 8))}
    file = SafetensorsFile(write(tmp_path / "t.safetensors", header, bytes(range(16))))
    assert bytes(file.raw(file.tensors["b"])) == bytes(range(8, 16))
    file.close()


RAW = {
    "nothing": (b"", "can not be read: the file is empty"),
    "half a length": (b"\1\0\0\0", "not a safetensors file: it has 4 bytes"),
    "a header of 2**63 bytes": (
        struct.pack("<Q", 2**63) + b"{}",
        "the header has 9223372036854775808 bytes, expected at most 16777216",
    ),
    "a header past the end": (
        struct.pack("<Q", 1_000) + b"{}",
        "the header ends at byte 1008, but the file has 10 (truncated?)",
    ),
    "a header that is no JSON": (with_header(b"{'t': 1}"), "the header is not JSON: "),
    "a header that is a list": (with_header(b"[]"), "the header is not a JSON object"),
    "a header that is not UTF-8": (with_header(b'{"\xff": 1}'), "the header is not UTF-8"),
    "deep nesting": (with_header(b'{"t":' + b"[" * 100_000), "the header is nested too deeply"),
    "the same tensor twice": (
        with_header(b'{"t": {"dtype": "U8", "shape": [1], "data_offsets": [0, 1]}, "t": 1}') + b"x",
        "the header has key 't' twice",
    ),
    "the same field twice": (with_header(b'{"t": {"dtype": "U8", "dtype": "F32"}}'), "has key 'dtype' twice"),
    "infinity": (with_header(b'{"t": Infinity}'), "the header holds Infinity, which is not JSON"),
    "a number of 10,000 digits": (with_header(b'{"t": ' + b"9" * 10_000 + b"}"), "the header is not JSON: "),
}


@pytest.mark.usefixtures("little_memory")
@pytest.mark.parametrize(("content", "message"), RAW.values(), ids=RAW.keys())
def test_a_file_that_is_none_is_named(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "t.safetensors"
    path.write_bytes(content)
    with pytest.raises(ModelError) as caught:
        SafetensorsFile(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert message in str(caught.value)


HEADERS: dict[str, tuple[dict[str, Any], str]] = {
    "data that are cut off": ({"t": entry(shape=(3,), offsets=(0, 12))}, "tensor t ends at byte 82, but"),
    "data far past the end": (
        {"t": entry(shape=(2**61,), offsets=(0, 2**63 - 4))},
        "tensor t lies at bytes 0 to 9223372036854775804",
    ),
    "a negative offset": ({"t": entry(offsets=(-8, 0))}, "tensor t has '-8' in its data_offsets"),
    "offsets the wrong way round": ({"t": entry(offsets=(8, 0))}, "tensor t lies at bytes 8 to 0"),
    "an offset that is a fraction": (
        {"t": entry(offsets=(0, 8.0))},
        "tensor t has '8.0' in its data_offsets",
    ),
    "an offset that is true": ({"t": entry(offsets=(True, 8))}, "tensor t has 'True' in its data_offsets"),
    "an offset of 64 bits": ({"t": entry(offsets=(0, 2**63))}, "tensor t has '9223372036854775808' in its"),
    "one offset": ({"t": entry(offsets=(0,))}, "tensor t has 1 data_offsets, expected 2"),
    "offsets in an object": ({"t": entry(offsets={})}, "tensor t has a data_offsets that is not a list"),
    "a product past 64 bits": (
        {"t": entry(shape=(2**62, 2**62, 2**62))},
        f"tensor t lies at bytes 0 to 8 of the data, but its shape and dtype make {4 * 2**186} bytes",
    ),
    "a product that would wrap to fit": (
        {"t": entry(shape=(2**62 + 2,))},
        "shape and dtype make 184467440737",
    ),
    "a shape below 0": ({"t": entry(shape=(-2,))}, "tensor t has '-2' in its shape"),
    "an empty dimension": (
        {"t": entry(shape=(0, 4))},
        "tensor t has shape [0, 4], expected 1 to 4 dimensions",
    ),
    "no dimensions": ({"t": entry(shape=())}, "tensor t has shape [], expected 1 to 4 dimensions above 0"),
    "five dimensions": ({"t": entry(shape=(1, 1, 1, 1, 2))}, "tensor t has a shape that is not a list of at"),
    "an unknown dtype": ({"t": entry(dtype="F4")}, "tensor t has dtype 'F4', expected one of F32, F16, BF16"),
    "a dtype that is a number": ({"t": entry() | {"dtype": 1}}, "tensor t has dtype '1', expected one of"),
    "a field too many": (
        {"t": entry() | {"x": 1}},
        "tensor t is not an object of dtype, shape and data_offsets",
    ),
    "a tensor that is a number": ({"t": 1}, "tensor t is not an object of dtype, shape and data_offsets"),
    "two tensors in the same bytes": (
        {"a": entry(), "b": entry()},
        "tensor b begins at byte 0 of the data and overlaps the tensor before it, expected 8",
    ),
    "a tensor inside another": (
        {"a": entry(), "b": entry("U8", (4,), (2, 6))},
        "tensor b begins at byte 2 of the data and overlaps the tensor before it, expected 8",
    ),
    "a gap": (
        {"a": entry("U8", (2,), (0, 2)), "b": entry("U8", (4,), (4, 8))},
        "tensor b begins at byte 4 of the data and leaves a gap before it, expected 2",
    ),
    "a gap at the beginning": ({"a": entry("U8", (4,), (4, 8))}, "tensor a begins at byte 4 of the data and"),
    "bytes that are no tensor's": ({"a": entry("U8", (4,), (0, 4))}, "the tensors end at byte "),
    "metadata that are no text": (
        {"__metadata__": {"a": 1}, "t": entry()},
        "__metadata__ is not an object of",
    ),
    "metadata in a list": ({"__metadata__": [], "t": entry()}, "__metadata__ is not an object of strings"),
    "a name with a line feed": ({"a\nb": entry()}, "tensor name 'a\\nb' is not 1 to 1024 printable bytes"),
    "a long name": ({"a" * (NAME_BYTES_MAX + 1): entry()}, "is not 1 to 1024 printable bytes"),
    "half of a surrogate pair": ({"\ud800": entry()}, "tensor name '\\ud800' is not 1 to 1024 printable"),
}


@pytest.mark.usefixtures("little_memory")
@pytest.mark.parametrize(("header", "message"), HEADERS.values(), ids=HEADERS.keys())
def test_a_header_that_lies_names_file_and_tensor(
    tmp_path: Path, header: dict[str, Any], message: str
) -> None:
    path = write(tmp_path / "t.safetensors", header, bytes(8))
    with pytest.raises(ModelError) as caught:
        SafetensorsFile(path)
    text = str(caught.value)
    assert text.startswith(f"{path}: ")
    assert message in text
    assert text.isprintable()
    assert len(text) < len(str(path)) + 300


@pytest.mark.usefixtures("little_memory")
def test_a_header_with_too_many_values_is_not_parsed(tmp_path: Path) -> None:
    path = write(tmp_path / "t.safetensors", b'{"t":[' + b"[]," * (VALUES_MAX // 2) + b"[]]}")
    with pytest.raises(ModelError, match=f"the header has more than {VALUES_MAX} values"):
        SafetensorsFile(path)


@pytest.mark.usefixtures("little_memory")
def test_the_longest_header_is_the_last_that_is_read(tmp_path: Path) -> None:
    path = tmp_path / "t.safetensors"
    with path.open("wb") as file:
        file.write(struct.pack("<Q", HEADER_BYTES_MAX + 1))
        file.truncate(HEADER_BYTES_MAX + 100)  # a hole: it takes no room
    with pytest.raises(ModelError, match="the header has 16777217 bytes, expected at most 16777216"):
        SafetensorsFile(path)


def test_a_file_cut_short_anywhere_is_a_model_error(tmp_path: Path) -> None:
    content = safetensors_bytes(hf_tensors(TinyShape(layers=1, width=8, heads=1, kv_heads=1, feed_forward=8)))
    path = tmp_path / "t.safetensors"
    for size in range(0, len(content), 97):
        path.write_bytes(content[:size])
        with pytest.raises(ModelError, match=r"t\.safetensors: "):
            SafetensorsFile(path)


@given(at=st.integers(0, 300), value=st.integers(0, 255))
def test_another_byte_anywhere_in_the_header_is_an_error_or_another_header(
    tmp_path_factory: pytest.TempPathFactory, at: int, value: int
) -> None:
    content = bytearray(safetensors_bytes({"a": np.zeros(2, np.float32), "b": np.ones((3, 4), np.float32)}))
    content[at % len(content)] = value
    path = tmp_path_factory.mktemp("flipped") / "t.safetensors"
    path.write_bytes(content)
    try:
        file = SafetensorsFile(path)
    except ModelError as error:
        assert str(error).startswith(f"{path}: ")  # noqa: PT017
    else:
        assert sum(info.byte_count for info in file.tensors.values()) == 56
        file.close()


# Directories.


def test_a_truncated_shard_is_named(tmp_path: Path) -> None:
    write_tiny_hf(tmp_path, TinyShape(), shards=3)
    shard = tmp_path / "model-00002-of-00003.safetensors"
    shard.write_bytes(shard.read_bytes()[:-1])
    with pytest.raises(ModelError, match=r"model-00002-of-00003\.safetensors: tensor \S+ ends at byte"):
        HfModel(tmp_path)


def test_a_missing_shard_is_named(tmp_path: Path) -> None:
    write_tiny_hf(tmp_path, TinyShape(), shards=3)
    (tmp_path / "model-00003-of-00003.safetensors").unlink()
    with pytest.raises(ModelError, match=r"model-00003-of-00003\.safetensors: no such file"):
        HfModel(tmp_path)


PLACES = [
    "../model.safetensors",
    "/etc/model.safetensors",
    "sub/model.safetensors",
    "..",
    ".safetensors",
    ".hidden.safetensors",
    "model\0.safetensors",
    "model\n.safetensors",
    "model.bin",
    "a" * 300 + ".safetensors",
    "",
    7,
    None,
    ["model.safetensors"],
]


@pytest.mark.usefixtures("little_memory")
@pytest.mark.parametrize("place", PLACES, ids=range(len(PLACES)))
def test_an_index_can_name_files_in_its_own_directory_only(tmp_path: Path, place: object) -> None:
    write_tiny_hf(tmp_path / "m", TinyShape())
    (tmp_path / "m" / "model.safetensors").rename(tmp_path / "model.safetensors")
    index = tmp_path / "m" / "model.safetensors.index.json"
    write_json(index, {"weight_map": {"lm_head.weight": place}})
    with pytest.raises(ModelError) as caught:
        HfModel(tmp_path / "m")
    assert str(caught.value).startswith(f"{index}: tensor 'lm_head.weight' is in ")
    assert str(caught.value).isprintable()


INDICES: dict[str, tuple[bytes, str]] = {
    "no map": (b"{}", "key weight_map is missing or not an object with tensors in it"),
    "an empty map": (b'{"weight_map": {}}', "key weight_map is missing or not an object"),
    "a list": (b'{"weight_map": []}', "key weight_map is missing or not an object"),
    "no JSON": (b"<html>", "is not JSON: "),
    "nested": (b"[" * 100_000, "is nested too deeply"),
    "a tensor twice": (b'{"weight_map": {"a": "b", "a": "c"}}', "has key 'a' twice"),
    "too many files": (
        json.dumps({"weight_map": {str(n): f"{n}.safetensors" for n in range(SHARDS_MAX + 1)}}).encode(),
        "1025 files, expected at most 1024",
    ),
}


@pytest.mark.usefixtures("little_memory")
@pytest.mark.parametrize(("content", "message"), INDICES.values(), ids=INDICES.keys())
def test_a_damaged_index_is_named(tmp_path: Path, content: bytes, message: str) -> None:
    write_tiny_hf(tmp_path, TinyShape(), shards=2)
    index = tmp_path / "model.safetensors.index.json"
    index.write_bytes(content)
    with pytest.raises(ModelError) as caught:
        HfModel(tmp_path)
    assert str(caught.value).startswith(f"{index}: ")
    assert message in str(caught.value)


def test_an_index_and_its_files_must_agree(tmp_path: Path) -> None:
    write_tiny_hf(tmp_path, TinyShape(), shards=2)
    index = tmp_path / "model.safetensors.index.json"
    content = json.loads(index.read_text())
    name, shard = next(iter(content["weight_map"].items()))
    write_json(index, {"weight_map": content["weight_map"] | {"more": shard}})
    with pytest.raises(ModelError, match=f"has tensor 'more' in {shard}, which lacks it"):
        HfModel(tmp_path)
    del content["weight_map"][name]
    write_json(index, content)
    with pytest.raises(ModelError, match=f"{shard} has tensor {name}, which .* does not have there"):
        HfModel(tmp_path)


@pytest.mark.parametrize(
    "name", ["model.layers.0.self_attn.extra.weight", "model.layers.00.mlp.up_proj.weight"]
)
def test_a_tensor_without_a_place_is_an_error(tmp_path: Path, name: str) -> None:
    tensors = hf_tensors(TinyShape())
    write_tiny_hf(tmp_path, TinyShape())
    content = safetensors_bytes(tensors | {name: np.zeros(1, np.float32)})
    (tmp_path / "model.safetensors").write_bytes(content)
    with pytest.raises(ModelError, match=rf"has tensor {name}, which has no place in the architectures"):
        HfModel(tmp_path)


def test_what_old_exporters_derived_from_the_config_is_left_aside(tmp_path: Path) -> None:
    tensors = hf_tensors(TinyShape())
    write_tiny_hf(tmp_path, TinyShape())
    derived = "model.layers.0.self_attn.rotary_emb.inv_freq"
    content = safetensors_bytes(tensors | {derived: np.zeros(4, np.float32)})
    (tmp_path / "model.safetensors").write_bytes(content)
    with HfModel(tmp_path) as directory:
        assert len(directory.tensors) == len(tensors)


def test_a_view_outlives_the_directory_that_it_came_from(tmp_path: Path) -> None:
    write_tiny_hf(tmp_path, TinyShape())
    with HfModel(tmp_path) as directory:
        view = directory.raw("output_norm.weight")
    assert len(view) == 4 * 32


@pytest.mark.parametrize("name", FILES_BYTES_MAX)
def test_a_file_above_its_bound_is_not_read(tmp_path: Path, name: str) -> None:
    write_tiny_hf(tmp_path, TinyShape())
    with (tmp_path / name).open("ab") as file:
        file.truncate(FILES_BYTES_MAX[name] + 1)
    with (
        pytest.raises(ModelError, match=f"{name}: \\d+ bytes, expected at most {FILES_BYTES_MAX[name]}"),
        HfModel(tmp_path) as directory,
    ):
        directory.content(name)


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    import os

    write_tiny_hf(tmp_path, TinyShape())
    (tmp_path / "config.json").unlink()
    os.mkfifo(tmp_path / "config.json")
    with pytest.raises(ModelError, match=r"config\.json: not a regular file"):
        HfModel(tmp_path)
