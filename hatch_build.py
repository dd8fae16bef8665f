"""Compiles the native kernels when the package is installed; without a C compiler it installs without them.

``odsi kernels`` says which backend is used and why. The library is called through ctypes, so no
Python headers are needed, and it asks the processor before it uses AVX-512.
"""

import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

FOLDER = Path("odsi_proto/kernels/native")
LIBRARY = FOLDER / "libodsi.so"
FLAGS = ("-O3", "-std=c11", "-fPIC", "-fopenmp", "-ffp-contract=off", "-Wall", "-Wextra")
"""No contraction: the source says which products are fused, so that bits do not depend on the compiler."""
AVX512 = (
    *("-mavx512f", "-mavx512bw", "-mavx512vl", "-mavx512dq", "-mavx512vnni", "-mf16c", "-mfma"),
    "-mprefer-vector-width=512",
)
PLAIN = "level.c"
"""Runs on every processor: it finds out whether the rest may."""


class NativeKernels(BuildHookInterface[Any]):
    """Puts ``libodsi.so`` beside its sources, and in the wheel."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if self.target_name != "wheel":
            return
        root = Path(self.root)
        if compile_library(root):
            build_data["pure_python"] = False
            # Any Python: nothing in the library knows of one.
            build_data["tag"] = f"py3-none-{sysconfig.get_platform().replace('-', '_').replace('.', '_')}"
            build_data["artifacts"].append(f"/{LIBRARY}")


def compile_library(root: Path, environ: Mapping[str, str] = os.environ) -> bool:
    """Compile and link; False, with a line on standard error, where that can not be done.

    The compiler is ``CC``, which may have arguments and is then the only one tried, or gcc, or cc.
    """
    (root / LIBRARY).unlink(missing_ok=True)  # a process that has it mapped keeps the old one whole
    asked = shlex.split(environ.get("CC", ""))
    path = environ.get("PATH", os.defpath)
    compiler = next((name for name in asked[:1] or ("gcc", "cc") if shutil.which(name, path=path)), None)
    if compiler is None:
        missing = f"CC is {asked[0]}, which is not there" if asked else "no C compiler"
        sys.stderr.write(f"odsi-proto: {missing}: installing without the native kernels\n")
        return False
    command = (shutil.which(compiler, path=path) or compiler, *asked[1:])
    with tempfile.TemporaryDirectory() as folder:
        objects = []
        for source in sorted((root / FOLDER).glob("*.c")):
            target = Path(folder) / f"{source.stem}.o"
            flags = FLAGS if source.name == PLAIN else (*FLAGS, *AVX512)
            if not _run(*command, *flags, "-c", str(source), "-o", str(target)):
                return False
            objects.append(str(target))
        built = Path(folder) / LIBRARY.name
        if not _run(*command, "-shared", "-fopenmp", "-o", str(built), *objects, "-lm"):
            return False
        shutil.copy(built, root / LIBRARY)
    return True


def _run(*command: str) -> bool:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.strip()]
        # Compilers lead up to an error with where they are: the line that names it says most.
        what = next(
            (line for line in lines if "error" in line), (lines or [f"exit status {done.returncode}"])[0]
        )
        sys.stderr.write(f"odsi-proto: {command[0]}: {what[:500]}: installing without the native kernels\n")
    return not done.returncode
