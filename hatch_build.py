"""Compiles the native kernels when the package is installed; without a C compiler it installs without them.

``odsi kernels`` says which backend is used and why. The library is called through ctypes, so no
Python headers are needed, and it asks the processor before it uses AVX-512.
"""

import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
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


def compile_library(root: Path) -> bool:
    """Compile and link; False, with a word on standard error, where that can not be done."""
    (root / LIBRARY).unlink(missing_ok=True)  # a process that has it mapped keeps the old one whole
    compiler = shutil.which(os.environ.get("CC", "gcc")) or shutil.which("cc")
    if compiler is None:
        sys.stderr.write("odsi-proto: no C compiler: installing without the native kernels\n")
        return False
    with tempfile.TemporaryDirectory() as folder:
        objects = []
        for source in sorted((root / FOLDER).glob("*.c")):
            target = Path(folder) / f"{source.stem}.o"
            flags = FLAGS if source.name == PLAIN else (*FLAGS, *AVX512)
            if not _run(compiler, *flags, "-c", str(source), "-o", str(target)):
                return False
            objects.append(str(target))
        built = Path(folder) / LIBRARY.name
        if not _run(compiler, "-shared", "-fopenmp", "-o", str(built), *objects, "-lm"):
            return False
        shutil.copy(built, root / LIBRARY)
    return True


def _run(*command: str) -> bool:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.stderr.write(f"odsi-proto: installing without the native kernels:\n{done.stderr[:2000]}\n")
    return not done.returncode
