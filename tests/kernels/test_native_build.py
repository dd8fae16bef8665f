"""The compilation of the native kernels at installation: it works, or it says in a line why not."""

import importlib.util
import os
import shutil
import subprocess
from pathlib import Path
from types import ModuleType

import pytest
from kernels.tiny_layers import Shape, needs_native

from odsi_proto.kernels import native
from odsi_proto.wire.tensor import NumericProfile

ROOT = Path(__file__).parents[2]

needs_compiler = pytest.mark.skipif(shutil.which("gcc") is None, reason="no C compiler")


@pytest.fixture(scope="module")
def build() -> ModuleType:
    """hatch_build.py, which lies outside the package."""
    spec = importlib.util.spec_from_file_location("hatch_build", ROOT / "hatch_build.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def sources(tmp_path: Path, build: ModuleType) -> Path:
    """A copy of the sources, with what an earlier build left."""
    folder = tmp_path / build.FOLDER
    folder.mkdir(parents=True)
    for source in (ROOT / build.FOLDER).glob("*.[ch]"):
        shutil.copy(source, folder)
    (tmp_path / build.LIBRARY).write_bytes(b"an older build")
    return tmp_path


def script(path: Path, text: str) -> str:
    """A program of its own."""
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


@needs_native
@needs_compiler
def test_the_sources_compile_to_kernels_that_run(sources: Path, build: ModuleType) -> None:
    assert build.compile_library(sources)
    library = sources / build.LIBRARY
    assert native.why_not(Shape().config, NumericProfile.FAST, library) is None
    assert [path.name for path in library.parent.iterdir() if path.suffix not in {".c", ".h"}] == [
        library.name
    ]


UNUSABLE = {
    "a compiler that is not there": ("/no/such/gcc -m64", "CC is /no/such/gcc, which is not there"),
    "a program that fails": ("false", "false: exit status 1"),
    "a program that fails, with arguments": ("false --quietly 'and more'", "false: exit status 1"),
}


@pytest.mark.parametrize(("compiler", "message"), UNUSABLE.values(), ids=UNUSABLE)
def test_a_compiler_that_does_not_work_is_a_line_and_leaves_no_library(
    sources: Path, build: ModuleType, capsys: pytest.CaptureFixture[str], compiler: str, message: str
) -> None:
    # One that was not there used to be replaced by cc, and one that failed was two lines.
    assert not build.compile_library(sources, {**os.environ, "CC": compiler})
    written = capsys.readouterr().err
    assert written.count("\n") == 1
    assert written.startswith("odsi-proto: ")
    assert f"{message}: installing without the native kernels\n" in written
    assert not (sources / build.LIBRARY).exists()


def test_a_machine_without_compilers_is_a_line_and_leaves_no_library(
    sources: Path, build: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    assert not build.compile_library(sources, {"PATH": str(sources)})
    assert capsys.readouterr().err == "odsi-proto: no C compiler: installing without the native kernels\n"
    assert not (sources / build.LIBRARY).exists()


def test_a_compiler_that_writes_nothing_at_the_end_leaves_no_library(
    sources: Path, build: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    compiler = script(sources / "cc", 'case "$*" in *-shared*) echo "ld: no room" >&2; exit 1;; esac')
    assert not build.compile_library(sources, {"CC": compiler, "PATH": os.environ["PATH"]})
    assert capsys.readouterr().err.endswith("cc: ld: no room: installing without the native kernels\n")
    assert not (sources / build.LIBRARY).exists()


@needs_compiler
def test_a_source_that_does_not_compile_is_named_in_a_line(
    sources: Path, build: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    (sources / build.FOLDER / "attention.c").write_text("void f(void) {\n    return 1 +;\n}\n")
    assert not build.compile_library(sources)
    written = capsys.readouterr().err
    assert written.count("\n") == 1
    assert "attention.c:2:" in written
    assert "error:" in written
    assert not (sources / build.LIBRARY).exists()


def test_a_path_of_the_compiler_with_spaces_is_one_word(sources: Path, build: ModuleType) -> None:
    folder = sources / "my tools"
    folder.mkdir()
    log = sources / "log"
    compiler = script(folder / "cc", f'echo "$1" >> {log}; exit 1')
    assert not build.compile_library(sources, {"CC": f"'{compiler}' -first", "PATH": os.environ["PATH"]})
    assert log.read_text() == "-first\n"


@needs_compiler
@pytest.mark.parametrize("layout", ["", "int odsi_layout(void) { return 7; }"], ids=["none", "another"])
def test_a_library_of_other_sources_is_not_called(tmp_path: Path, layout: str) -> None:
    """After an update without a new installation its structures would be read at wrong places."""
    (tmp_path / "old.c").write_text(f"int odsi_is_supported(void) {{ return 1; }}\n{layout}\n")
    library = tmp_path / "old.so"
    command = ["gcc", "-shared", "-fPIC", str(tmp_path / "old.c"), "-o", str(library)]
    subprocess.run(command, check=True)

    reason = native.why_not(Shape().config, NumericProfile.FLOAT32, library)

    assert reason == "the native kernels were built from other sources: install the package again"
