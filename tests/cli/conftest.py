"""Tiny models and the program in this process."""

from pathlib import Path

import pytest
from cli.programs import Here
from kernels.tiny_llama import TinyShape, write_tiny


@pytest.fixture
def odsi(capsys: pytest.CaptureFixture[str]) -> Here:
    return Here(capsys)


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of three layers and a context of 64 positions."""
    path = tmp_path_factory.mktemp("models") / "tiny.gguf"
    write_tiny(path, TinyShape())
    return path
