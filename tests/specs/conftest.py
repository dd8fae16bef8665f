"""The tools of the specification are scripts; the tests read documents and registries through them."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tools"))
