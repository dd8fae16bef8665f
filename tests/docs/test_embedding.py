"""The programs of docs/embedding.md, run as they stand there."""

import re
import subprocess
import sys
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "embedding.md"


def test_the_documented_node_serves_the_documented_client() -> None:
    node_program, client_program = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    node = subprocess.Popen([sys.executable, "-c", node_program], stdout=subprocess.PIPE, text=True)
    try:
        assert node.stdout is not None
        peer = node.stdout.readline().strip()
        client = subprocess.run(
            [sys.executable, "-c", client_program, peer],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    finally:
        node.kill()
        node.wait()
        node.stdout.close()
    assert client.returncode == 0, client.stderr
    assert "The capital of France is Paris." in client.stdout
