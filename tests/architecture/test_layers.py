"""The shape of the tree: what is pure stays pure, what is long is cut."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = sorted((ROOT / "odsi_proto").rglob("*.py")) + sorted((ROOT / "tests").rglob("*.py"))
LINES_MAX = 500
FUNCTION_LINES_MAX = 60


def test_the_pure_packages_import_without_asyncio_torch_or_aioquic() -> None:
    program = (
        "import sys\n"
        "for name in ('asyncio', 'torch', 'aioquic', 'socket', 'numpy'):\n"
        "    sys.modules[name] = None\n"
        "import pkgutil, importlib, odsi_proto\n"
        "for package in ('wire', 'statemachine', 'routing'):\n"
        "    root = importlib.import_module('odsi_proto.' + package)\n"
        "    for module in pkgutil.walk_packages(root.__path__, root.__name__ + '.'):\n"
        "        importlib.import_module(module.name)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_file_and_no_function_is_too_long(path: Path) -> None:
    text = path.read_text()
    assert text.count("\n") <= LINES_MAX
    long = [
        f"{node.name} at line {node.lineno}"
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (node.end_lineno or 0) - node.lineno + 1 > FUNCTION_LINES_MAX
    ]
    assert not long
