"""Unpacking of every supported type against the ``gguf`` package, bit for bit."""

from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from odsi_proto.errors import ModelError
from odsi_proto.kernels.gguf import GgufFile
from odsi_proto.kernels.quants import TYPES, load_tensor
from odsi_proto.kernels.source import COMPUTED_TYPES

ROWS, BLOCKS = 48, 3


def write(path: Path, raw: NDArray[np.uint8], kind: gguf.GGMLQuantizationType) -> None:
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_tensor("t", raw, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@pytest.mark.parametrize("name", TYPES)
def test_random_bytes_unpack_as_the_gguf_package_unpacks_them(tmp_path: Path, name: str) -> None:
    kind = gguf.GGMLQuantizationType[name]
    _, block_bytes = gguf.GGML_QUANT_SIZES[kind]
    raw = np.random.default_rng(7).integers(0, 256, (ROWS, BLOCKS * block_bytes), dtype=np.uint8)
    write(tmp_path / "t.gguf", raw, kind)
    with GgufFile(tmp_path / "t.gguf") as file:
        found = load_tensor(file, "t")
    with np.errstate(all="ignore"):  # random scales are sometimes not numbers
        expected = gguf.quants.dequantize(raw, kind)
    assert found.dtype == torch.float32
    np.testing.assert_array_equal(found.numpy(), expected)


def test_a_type_that_can_not_be_unpacked_is_named_with_those_that_can(tmp_path: Path) -> None:
    kind = gguf.GGMLQuantizationType.IQ4_XS
    write(tmp_path / "t.gguf", np.zeros((2, 136), dtype=np.uint8), kind)
    with GgufFile(tmp_path / "t.gguf") as file, pytest.raises(ModelError) as caught:
        load_tensor(file, "t")
    assert str(caught.value).endswith(f"tensor t has type IQ4_XS, expected one of {', '.join(TYPES)}")


def test_every_packing_that_is_accepted_has_a_function() -> None:
    assert tuple(TYPES) == COMPUTED_TYPES
